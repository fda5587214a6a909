"""Models promoted, rolled back and reloaded while a worker scores: on a real broker and Valkey."""

import asyncio
import json
import shutil
import signal
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from generator.bank import Bank
from generator.settings import BankSettings
from infra.history_store import RedisHistoryStore
from infra.verifier import Verifier
from models.pipeline import DECISIONS, decide
from models.registry import ModelRegistry
from models.roles import in_share
from tests.deployment import Deployment, Outputs, eventually

pytestmark = [pytest.mark.integration, pytest.mark.long]
BANK = BankSettings(customers=90, days=26, seed=31, start=datetime(2026, 1, 1, tzinfo=UTC))
SHARE = 0.3


@pytest.fixture
def kept(registry, models, tmp_path):
    """Fraud and churn v1 to v4. Each version scores everything otherwise; v4 is of other declarations."""
    shutil.copytree(registry._root, tmp_path / "models")
    mine = ModelRegistry(tmp_path / "models")
    for slope in (0.8, 0.6):
        for model in (models.fraud, models.churn):
            mine.save(replace(model.card, slope=model.card.slope * slope), model.trees)
    mine.save(replace(models.fraud.card, features_hash="0" * 16), models.fraud.trees)
    return mine


@pytest.fixture
def deployment(tmp_path, kept):
    running = Deployment(tmp_path, tmp_path / "models", durable=False)
    running.stack.start()
    yield running
    running.close()


def both(call, *arguments):
    for name in ("fraud", "churn"):
        call(name, *arguments)


def steps(kept, folder):
    """What happens between slices of the load."""
    trees = folder / "fraud" / "v3" / "trees.ubj"
    whole = trees.read_bytes()
    return [
        lambda: both(kept.promote, "v2"),
        lambda: both(kept.shadow, "v3"),
        lambda: both(kept.roll_back),
        lambda: both(kept.challenge, "v2", SHARE),
        lambda: kept.promote("fraud", "v4"),
        lambda: kept.roll_back("fraud"),
        lambda: both(kept.promote, "v3"),
        lambda: trees.write_bytes(whole[:100]),
        lambda: kept.retire("fraud", "v2"),
        lambda: trees.write_bytes(whole),
        lambda: both(kept.promote, "v2"),
        lambda: both(kept.roll_back),
    ]


async def test_every_score_is_of_the_version_it_names_while_models_come_and_go(deployment, kept, engine):
    await deployment.create_topics()
    events = [e for e in Bank(BANK).events() if e.topic == "transactions"]
    changes = steps(kept, deployment.models)
    slices = np.array_split(np.arange(len(events)), len(changes) + 1)

    def messages(rows):
        for row in rows.tolist():
            message = events[row].message
            deployment.log.add(message)
            yield "transactions", str(message["customer_id"]).encode(), json.dumps(message).encode()

    settings = {"models_watch_s": 0.05, "chunk_records": 50, "score_features": True}
    worker = deployment.worker(**settings)
    worker.start(120)
    reloads = 0
    async with Outputs(deployment.stack.bootstrap) as outputs:
        for number, rows in enumerate(slices):
            await deployment.publish(messages(rows))
            if number == len(changes):
                break
            # The change comes while the slice is under way.
            half = deployment.log.ids[-(len(rows) // 2)]
            await outputs.until_scored([half])
            changes[number]()
            if number % 3 == 0:
                worker._process.send_signal(signal.SIGHUP)
            if number == 5:
                worker.kill()
                worker = deployment.worker(**settings)
                worker.start(120)
            wanted = kept.roles_in_use()["fraud"].champion

            def told(wanted=wanted, worker=worker):
                lines = deployment.logs(worker)
                taken = [line for line in lines if line["event"] in ("models taken into use", "worker ready")]
                refused = [line for line in lines if line["event"].startswith("models refused")]
                newest = str(taken[-1].get("models") or taken[-1].get("fraud")) if taken else ""
                return f'"champion":"{wanted}"' in newest or newest == wanted or bool(refused)

            await eventually(told, 60, f"a look at the registry after change {number}")
            reloads += 1
        await outputs.until_scored(deployment.log.ids, 180)
        scores = [score for _, score in outputs.records["scores.fraud"]]
        shadows = [score for _, score in outputs.records["scores.shadow"]]
        alerts = [alert for _, alert in outputs.records["alerts"] if alert["kind"] == "fraud"]
        churn = [score for _, score in outputs.records["scores.churn"]]
        assert worker.running
    refused = [
        line["error"]
        for one in deployment.workers
        for line in deployment.logs(one)
        if line["event"].startswith("models refused")
    ]
    worker.stop()

    # None lost, none twice, none without a version.
    assert outputs.scored() == Counter(deployment.log.ids)
    used = Counter((score["model"]["version"], score["model"]["role"]) for score in scores)
    assert {("v1", "champion"), ("v2", "champion"), ("v2", "challenger"), ("v3", "champion")} <= used.keys()
    assert {version for version, _ in used} == {"v1", "v2", "v3"}
    assert any("0000000000000000" in error for error in refused)

    # None from a mixture: score, decision and reasons are those of exactly the named version.
    names = engine.names
    by_id = {}
    for version in ("v1", "v2", "v3"):
        model = kept.load("fraud", names, version)
        mine = [score for score in scores if score["model"]["version"] == version]
        X = np.array([[vector_value(score, name) for name in names] for score in mine])
        proba = model.predict_proba(X)
        assert [score["score"] for score in mine] == proba.tolist()
        assert [score["decision"] for score in mine] == [DECISIONS[d] for d in decide(model, proba)]
        by_id |= {score["transaction_id"]: (score, vector) for score, vector in zip(mine, X, strict=True)}
    # And no two versions say the same, so that a wrong one would show.
    X = np.array([vector for _, vector in by_id.values()])
    said = [kept.load("fraud", names, version).predict_proba(X) for version in ("v1", "v2", "v3")]
    assert all((said[a] != said[b]).mean() > 0.99 for a, b in ((0, 1), (0, 2), (1, 2)))

    for score in scores:
        its_own = bool(in_share([score["customer_id"]], SHARE)[0])
        assert its_own or score["model"]["role"] == "champion"
    for alert in alerts:
        score, _ = by_id[alert["transaction_id"]]
        assert (alert["score"], alert["model"]) == (score["score"], score["model"])

    # Shadows are in their own topic and nowhere else, and they too are what they say.
    assert shadows
    assert {m["model"]["role"] for m in shadows} == {"shadow"}
    assert {m["model"]["role"] for m in (*scores, *alerts, *churn)} == {"champion", "challenger"}
    of_fraud = [m for m in shadows if m["kind"] == "fraud"]
    shadow = kept.load("fraud", names, "v3")
    assert [m["score"] for m in of_fraud] == shadow.predict_proba(
        np.array([by_id[m["transaction_id"]][1] for m in of_fraud])
    ).tolist()
    # What was published before the kill and whose transaction's score was not is published again, the same.
    assert len({(m["transaction_id"], m["score"], m["decision"]) for m in of_fraud}) == len(
        {m["transaction_id"] for m in of_fraud}
    )
    moments = Counter((m["customer_id"], m["as_of"], m["model"]["version"]) for m in churn)
    assert len({(customer, as_of) for customer, as_of, _ in moments}) == len(moments)

    # The vectors are those of the log: rebuilt from it, score by score, by the versions they name.
    store = RedisHistoryStore(deployment.stack.redis_url)
    try:
        tally = await Verifier(deployment.stack.bootstrap, store, kept, engine).run(None)
    finally:
        await store.close()
    assert (tally.differences, tally.scores, tally.vectors) == (0, len(events), len(events))
    assert reloads == len(changes)


def vector_value(score, name):
    value = score["features"][name]
    return float("nan") if value is None else value


async def test_worker_ends_with_three_where_the_first_set_does_not_fit(deployment, kept):
    kept.promote("fraud", "v4")
    worker = deployment.worker()
    with pytest.raises(Exception, match=r"ended with code 3(.|\n)*0000000000000000"):
        await asyncio.to_thread(worker.start)
