import asyncio
import shutil
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from models.in_use import ModelsInUse, Refreshed
from models.model_set import Models
from models.registry import ModelRegistry
from models.roles import in_share
from schemas.topics import ALERTS, CHURN_SCORES, FRAUD_SCORES, SHADOW_SCORES
from stream_app.model_watch import ModelWatch
from tests.streaming import Crash, Stream


@pytest.fixture
def sets(eager: Models, engine, tmp_path):
    """Sets of models by name; versions differ in slope, so in every score."""
    kept = ModelRegistry(tmp_path / "models")
    for slope in (1.0, 0.7, 0.4):
        for model in (eager.fraud, eager.churn):
            kept.save(replace(model.card, slope=model.card.slope * slope), model.trees)
    for name in ("fraud", "churn"):
        kept.promote(name, "v1")

    def made(**roles):
        for what, version in roles.items():
            {
                "promote": lambda v: [kept.promote(n, v) for n in ("fraud", "churn")],
                "challenge": lambda v: [kept.challenge(n, v, 0.5) for n in ("fraud", "churn")],
                "shadow": lambda v: [kept.shadow(n, v) for n in ("fraud", "churn")],
            }[what](version)
        return kept.load_set(kept.roles_in_use(), engine)

    return made


def streaming(models, *others):
    stream = Stream(models)
    stream.known = {m.identity: m for m in (models, *others)}
    return stream


def versions(stream, topic=FRAUD_SCORES.name):
    return [m["model"]["version"] for m in stream.kafka.messages(topic)]


async def test_another_set_scores_from_the_next_part_on(sets):
    first, second = sets(), sets(promote="v2")
    stream = streaming(first, second)
    await stream.start()
    stream.transact(40)
    await stream.run([25])
    stream.models = second
    stream.transact(20, first=40)
    await stream.run()
    assert versions(stream) == ["v1"] * 40 + ["v2"] * 20
    lease = await stream.store.acquire(0)
    assert lease.models == second.identity


@pytest.mark.parametrize(
    "point", ["before-publish", "after-publish", "before-commit", "before-models", "after-models"]
)
@pytest.mark.parametrize("through", [None, 3, 7])
async def test_models_promoted_between_a_crash_and_its_replay_change_nothing_that_was_published(
    sets, point, through
):
    first, second = sets(), sets(promote="v2")
    stream = streaming(first, second)
    await stream.start()
    stream.transact(30)
    await stream.run()
    stream.models = second
    stream.transact(30, first=30)
    if through is not None:
        # The broker takes some messages, and the process dies in the middle of publishing.
        stream.publisher.failures = [(through, Crash())]
    else:

        def crash(reached):
            if reached == point:
                raise Crash

        stream.crash = crash
    with pytest.raises(Crash):
        await stream.run()
    stream.crash = lambda reached: None
    third = sets(promote="v3")
    stream.known[third.identity] = stream.models = third
    await stream.start()
    await stream.run()
    stream.transact(10, first=60)
    await stream.run()
    assert not stream.worker.failed.done()
    assert stream.scored == [f"t-{n}" for n in range(70)]
    by_id = {m["transaction_id"]: m for m in stream.kafka.messages(FRAUD_SCORES.name)}
    for alert in stream.kafka.messages(ALERTS.name):
        if alert["kind"] == "fraud":
            score = by_id[alert["transaction_id"]]
            assert (alert["score"], alert["model"]) == (score["score"], score["model"])
    said: dict[tuple[str, str], set[str]] = {}
    for churn in stream.kafka.messages(CHURN_SCORES.name):
        key = (churn["customer_id"], churn["as_of"])
        said.setdefault(key, set()).add(f"{churn['churn_probability']} {churn['model']}")
    assert all(len(texts) == 1 for texts in said.values())
    # What lookups find is what was published.
    for customer in ("c-0", "c-1", "c-2"):
        state = await stream.store.read(customer)
        for kept in map(orjson.loads, state.scores):
            assert kept == by_id[kept["transaction_id"]]
    assert versions(stream)[-10:] == ["v3"] * 10


async def test_a_set_that_is_gone_does_not_stop_the_worker(sets):
    first, second = sets(), sets(promote="v2")
    stream = streaming(first)
    await stream.start()
    stream.transact(10)
    await stream.run()
    stream.transact(10, first=10)
    stream.known, stream.models = {}, second
    await stream.start()
    await stream.run()
    assert versions(stream) == ["v1"] * 10 + ["v2"] * 10


async def test_each_customer_is_scored_by_one_model_and_the_score_says_which(sets):
    both = sets(challenge="v2")
    alone, other = replace(both, challengers={}), sets(promote="v2")
    streams = {name: streaming(m) for name, m in (("both", both), ("v1", alone), ("v2", other))}
    for stream in streams.values():
        await stream.start()
        stream.transact(120, customers=12)
        await stream.run()
    for topic, value in ((FRAUD_SCORES.name, "score"), (CHURN_SCORES.name, "churn_probability")):
        alike = {
            name: [(m["customer_id"], m[value], m["model"]["version"]) for m in s.kafka.messages(topic)]
            for name, s in streams.items()
        }
        for n, (customer, score, version) in enumerate(alike["both"]):
            assert version == ("v2" if in_share([customer], 0.5)[0] else "v1")
            assert (customer, score, version) == alike[version][n]
        assert {version for _, _, version in alike["both"]} == {"v1", "v2"}
    roles = {
        (m["model"]["version"], m["model"]["role"]) for m in streams["both"].kafka.messages(FRAUD_SCORES.name)
    }
    assert roles == {("v1", "champion"), ("v2", "challenger")}


async def test_shadows_score_everything_and_are_seen_in_their_topic_only(sets):
    plain = sets()
    shadowed = sets(shadow="v2")
    later = sets(promote="v2")
    streams = [streaming(plain), streaming(shadowed), streaming(later)]
    for stream in streams:
        await stream.start()
        stream.transact(60)
        await stream.run()
    without, with_one, promoted = streams
    for topic in (FRAUD_SCORES.name, CHURN_SCORES.name, ALERTS.name):
        assert with_one.kafka.messages(topic) == without.kafka.messages(topic)
    said = with_one.kafka.messages(SHADOW_SCORES.name)
    assert {(m["model"]["version"], m["model"]["role"]) for m in said} == {("v2", "shadow")}
    assert [(m["transaction_id"], m["score"], m["decision"]) for m in said if m["kind"] == "fraud"] == [
        (m["transaction_id"], m["score"], m["decision"]) for m in promoted.kafka.messages(FRAUD_SCORES.name)
    ]
    assert [
        (m["customer_id"], m["as_of"], m["score"], m["decision"]) for m in said if m["kind"] == "churn"
    ] == [
        (m["customer_id"], m["as_of"], m["churn_probability"], m["band"])
        for m in promoted.kafka.messages(CHURN_SCORES.name)
    ]
    assert not without.kafka.messages(SHADOW_SCORES.name)
    assert all(
        state.scores and b"shadow" not in b"".join(state.scores)
        for state in [await with_one.store.read("c-1")]
    )
    # A replay publishes none of them again.
    before = Counter(m["transaction_id"] for m in said if m["kind"] == "fraud")
    with_one.transact(5, first=60)
    with_one.store.failures = []

    def crash(reached):
        if reached == "after-publish":
            raise Crash

    with_one.crash = crash
    with pytest.raises(Crash):
        await with_one.run()
    with_one.crash = lambda reached: None
    await with_one.start()
    await with_one.run()
    after = Counter(
        m["transaction_id"] for m in with_one.kafka.messages(SHADOW_SCORES.name) if m["kind"] == "fraud"
    )
    assert after == before + Counter(f"t-{n}" for n in range(60, 65))


class Signs:
    def __init__(self):
        self.taken, self.refused = [], []

    def models_taken(self, models):
        self.taken.append(models.fraud.reference["version"])

    def models_refused(self, refused):
        self.refused.append(refused)


async def test_the_watch_takes_promotions_and_shows_refusals(registry, models, engine, tmp_path, capfd):
    shutil.copytree(registry._root, tmp_path / "kept")
    kept = ModelRegistry(tmp_path / "kept")
    kept.save(models.fraud.card, models.fraud.trees)
    in_use, signs = ModelsInUse(kept, engine), Signs()
    watch = ModelWatch(in_use, signs, every_s=3600.0)
    task = asyncio.create_task(watch.run())

    async def looked(times):
        async with asyncio.timeout(60):
            while len(signs.refused) < times:
                await asyncio.sleep(0)

    kept.promote("fraud", "v2")
    watch.look_now()
    await looked(1)
    assert (signs.taken, signs.refused) == (["v2"], [False])
    kept.save(models.fraud.card, models.fraud.trees)
    kept.promote("fraud", "v3")
    (tmp_path / "kept" / "fraud" / "v3" / "trees.ubj").write_bytes(b"")
    for times in (2, 3):
        watch.look_now()
        await looked(times)
    assert (signs.taken, signs.refused) == (["v2"], [False, True, True])
    assert in_use.current.fraud.reference["version"] == "v2"
    # Once, not at every look.
    printed = capfd.readouterr()
    assert (printed.out + printed.err).count("models refused, the old ones go on") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_whatever_somebody_puts_into_a_registry_the_next_look_comes(sets):
    class Odd:
        current = sets()
        answers = (RecursionError("maximum depth"), Refreshed(), KeyError("edges"), Refreshed(taken=True))

        def refresh(self):
            answer, *self.answers = self.answers
            if isinstance(answer, Exception):
                raise answer
            return answer

    class Seen:
        def __init__(self):
            self.refused, self.taken = [], []
            self.models_refused, self.models_taken = self.refused.append, self.taken.append

    signs, odd = Seen(), Odd()
    watch = ModelWatch(odd, signs, 60.0)
    for _ in range(4):
        await watch.look()
    assert signs.refused == [True, False, True, False]
    assert signs.taken == [odd.current]
