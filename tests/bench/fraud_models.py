"""Figures of docs/models.md on generated banks: `python -m tests.bench.fraud_models typologies`.

Parts are `typologies`, `columns`, `terminals` and `online`. Each makes its banks, trains, scores and writes
its own part of docs/models.md, between two comments; minutes.
Models never see the banks they are measured on.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.progress import Progress
from sklearn.metrics import average_precision_score

from cli.file_log import entities_of, read_log
from features.definitions import DAY_MS
from features.engine import Engine
from features.entity_features import entity_features
from generator.bank import Bank
from generator.events import LOOKALIKES, TYPOLOGIES
from generator.settings import BankSettings
from infra.bank_files import write_bank
from infra.mapping import Mapping
from models.backtest import backtest_fraud
from models.contest import contest, fraud_scores
from models.costs import Costs
from models.evaluation import Ranking
from models.fraud_data import vectors_of
from models.fraud_training import memory_of, train_fraud
from models.online_scorer import OnlineScorer
from models.relearning import Memory
from models.tree import TreeModel
from models.vectors import Rows

DOCS = Path("docs/models.md")
PLOT = Path("docs/images/online_learning.svg")
START = datetime(2025, 3, 1, tzinfo=UTC)
ALL_COLUMNS = Path("docs/examples/generated_bank.yaml")
SIX_COLUMNS = """
transaction_id: transaction_id
customer_id: customer_id
event_time: event_time
amount: amount
currency: {constant: EUR}
merchant_id: merchant_id
label: {column: is_fraud, fraud: [1], genuine: [0], delay: 7d}
"""
BUDGET = 0.01
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Log:
    """A generated bank as a log, and the truth of each row: empty for genuine, for ordinary."""

    rows: Rows
    typology: np.ndarray
    lookalike: np.ndarray


def log_of(settings: BankSettings, *mappings: Mapping) -> list[Log]:
    """A bank read through each mapping."""
    found = []
    with tempfile.TemporaryDirectory() as folder, Progress(disable=True) as bar:
        path = Path(folder) / "bank.parquet"
        write_bank(Bank(settings).events, path, lambda time_ms: None)
        truth = pq.read_table(path, columns=["transaction_id", "typology", "lookalike"]).to_pydict()
        typology, lookalike = (
            dict(zip(truth["transaction_id"], truth[name], strict=True)) for name in ("typology", "lookalike")
        )
        for mapping in mappings:
            rows, account = read_log(path, mapping, Engine(), bar)
            assert account.refused == 0
            ids = rows.transaction_ids
            found.append(
                Log(
                    rows,
                    np.array([typology[i] or "" for i in ids]),
                    np.array([lookalike[i] or "" for i in ids]),
                )
            )
    return found


def trained(rows: Rows, engine: Engine, to_ms: int | None = None) -> TreeModel:
    """By what `tidegate train fraud` does."""
    return remembering(rows, engine, to_ms)[0]


def remembering(rows: Rows, engine: Engine, to_ms: int | None = None) -> tuple[TreeModel, Memory]:
    """The same, with what it remembers of what it was trained on."""
    data = vectors_of(rows, engine, to_ms=to_ms)
    costs = Costs(alerts_share=BUDGET)
    model = TreeModel(*train_fraud(data, engine, created_at="", costs=costs), engine.names)
    return model, memory_of(data)


def share_with_interval(hit: np.ndarray, customer: np.ndarray) -> str:
    """Share of rows that were hit, 95 % interval over customers drawn again."""
    if not len(hit):
        return "-"
    random = np.random.default_rng(7)
    codes = np.unique(customer, return_inverse=True)[1]
    drawn = []
    for _ in range(RESAMPLES):
        weights = random.poisson(1.0, codes.max() + 1)[codes]
        if weights.sum():
            drawn.append(np.average(hit, weights=weights))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{hit.mean():.2f} ({low:.2f} to {high:.2f})"


def typologies(small: int, large: int, seeds: list[int]) -> list[str]:
    """Recall of each way of fraud at a review budget, on banks of two sizes and three seeds each."""
    mapping = Mapping.load(ALL_COLUMNS)
    # As `tidegate train fraud` has it where a file is read by this mapping.
    engine = Engine(entities=entity_features(entities_of(mapping)))
    (learned,) = log_of(BankSettings(customers=800, days=130, seed=11, start=START), mapping)
    model = trained(learned.rows, engine)
    columns, sizes = [], []
    for customers in (small, large):
        parts = []
        for seed in seeds:
            (log,) = log_of(BankSettings(customers=customers, days=80, seed=seed, start=START), mapping)
            # A month of history first, as a bank that begins to use it would replay.
            from_ms = int(log.rows.time_ms[0]) // DAY_MS * DAY_MS + 30 * DAY_MS
            first = int(np.searchsorted(log.rows.time_ms, from_ms))
            blocks = list(backtest_fraud(log.rows, model, engine, from_ms=from_ms, anomaly=False))
            score = np.concatenate([block.score for block in blocks])
            who = np.array([f"{seed}-{c}" for block in blocks for c in block.customer_ids])
            assert len(score) == len(log.rows) - first
            looked_at = np.zeros(len(score), dtype=bool)
            looked_at[np.argsort(-score, kind="stable")[: int(BUDGET * len(score))]] = True
            parts.append((looked_at, who, log.typology[first:], log.lookalike[first:]))
        columns.append([np.concatenate(part) for part in zip(*parts, strict=True)])
        sizes.append(f"{customers} customers, seeds {', '.join(map(str, seeds))}")
    lines = [
        f"| recall at {BUDGET:.0%} of transactions reviewed | " + " | ".join(sizes) + " | transactions |",
        "| --- | --- | --- | --- |",
    ]

    def row(name: str, chosen: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> str:
        cells, counts = [], []
        for looked_at, who, typology, lookalike in columns:
            mine = chosen(typology, lookalike)
            cells.append(share_with_interval(looked_at[mine], who[mine]))
            counts.append(f"{int(mine.sum()):,}")
        return f"| {name} | " + " | ".join(cells) + f" | {' and '.join(counts)} |"

    lines += [row(name.replace("_", " "), lambda t, a, name=name: t == name) for name in TYPOLOGIES]
    lines.append(row("all fraud", lambda t, a: t != ""))
    lines += [
        "",
        "| false alarms: share of genuine transactions reviewed | " + " | ".join(sizes) + " | transactions |",
    ]
    lines.append("| --- | --- | --- | --- |")
    lines += [
        row(name.replace("_", " "), lambda t, a, name=name: (t == "") & (a == name)) for name in LOOKALIKES
    ]
    lines.append(row("ordinary", lambda t, a: (t == "") & (a == "")))
    return lines


def columns(typology: str, seed: int = 21) -> list[str]:
    """Six columns against all, where one way of fraud is all there is."""
    settings = BankSettings(
        customers=1000 if typology in TYPOLOGIES else 4000,
        days=125,
        seed=seed,
        start=START,
        typologies=(typology,),
        fraud_rate=0.12,
    )
    every, six = Mapping.load(ALL_COLUMNS), Mapping.parse(SIX_COLUMNS, "six columns")
    # The label is known after the same week in both.
    told = every.label.model_copy(update={"time": None})
    every = every.model_copy(update={"label": told})
    scores = []
    for mapping, log in zip((every, six), log_of(settings, every, six), strict=True):
        engine = Engine(entities=entity_features(entities_of(mapping)))
        cut_ms = int(log.rows.time_ms[0]) // DAY_MS * DAY_MS + 85 * DAY_MS
        model = trained(log.rows, engine, cut_ms)
        until = int(log.rows.time_ms[-1]) + 1
        scores.append(fraud_scores(log.rows, model, engine, cut_ms, until))
    found = contest(scores[0].y, scores[0].proba, scores[1].proba, scores[0].customer)
    lines = [
        "| columns | average precision | recall at 1 % of transactions reviewed |",
        "| --- | --- | --- |",
    ]
    for name, side in (("all", found.champion), ("six", found.challenger), ("difference", found.difference)):
        shown = [side[f] for f in ("average_precision", "recall_at_1pct_review")]
        lines.append(
            f"| {name} | " + " | ".join(f"{f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for f in shown) + " |"
        )
    lines += ["", f"{found.rows:,} transactions, {found.positives:,} of them fraud, seed {settings.seed}."]
    return lines


MARKS = (0, 10, 25, 50, 75, 100, 150, 200, 250, 300, 400, 500)


def ratio_with_interval(y: np.ndarray, now: np.ndarray, wanted: np.ndarray, customer: np.ndarray) -> str:
    """Average precision as a share of another's, 95 % interval over customers drawn again."""
    rankings = [Ranking(y, score) for score in (now, wanted)]
    codes = np.unique(customer, return_inverse=True)[1]
    random = np.random.default_rng(7)

    def ratio(weights: np.ndarray) -> float:
        one, other = (ranking.figures(weights)["average_precision"] for ranking in rankings)
        return one / other

    drawn = [ratio(random.poisson(1.0, codes.max() + 1)[codes].astype(np.float64)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{ratio(np.ones(len(y))):.0%} ({low:.0%} to {high:.0%})"


def online(typology: str, customers: int, days: int, seed: int) -> list[str]:
    """Average precision on a way of fraud never seen in training, by labels learned from."""
    first_day = 60
    settings = BankSettings(customers=customers, days=days, seed=seed, start=START, fraud_rate=0.2)
    mapping, engine = Mapping.load(ALL_COLUMNS), Engine()
    (log,) = log_of(replace(settings, typology_from={typology: first_day}), mapping)
    start_ms = int(START.timestamp() * 1000) + first_day * DAY_MS
    frauds, of_it = log.typology != "", log.typology == typology
    label_ms = log.rows.label_time_ms
    every, its = (np.sort(label_ms[mine & (label_ms > start_ms)]) for mine in (frauds, of_it))
    model, memory = remembering(log.rows, engine, start_ms)
    scorer = OnlineScorer(model, 7 * DAY_MS, memory)
    snapshots: dict[int, tuple[int, TreeModel]] = {}
    at_ms = 0
    for block in backtest_fraud(log.rows, model, engine, from_ms=start_ms, anomaly=False, online=scorer):
        if len(block):
            at_ms = int(block.time_ms[0])
            known, known_of_it = (int(np.searchsorted(times, at_ms, side="right")) for times in (every, its))
            due = [mark for mark in MARKS if mark not in snapshots and mark <= known_of_it]
            snapshots |= dict.fromkeys(due, (known, scorer.now))
        if len(snapshots) == len(MARKS):
            break
    else:
        raise SystemExit(f"only {len(its)} labels of {typology} came: give more --customers")
    (other,) = log_of(settings, mapping)
    with_it = trained(other.rows, engine, start_ms)
    data = vectors_of(log.rows, engine, from_ms=at_ms)
    kind = log.typology[-len(data.X) :]
    judged = (kind == typology) | (kind == "")
    X, y = data.X[judged].astype(np.float64), kind[judged] == typology
    who = np.array(log.rows.customer_ids)[-len(data.X) :][judged]
    best, never = (one.log_odds(X) for one in (with_it, model))
    wanted, untaught = (average_precision_score(y, log_odds) for log_odds in (best, never))
    scores = {mark: now.log_odds(X) for mark, (_, now) in snapshots.items()}
    found = {mark: average_precision_score(y, log_odds) for mark, log_odds in scores.items()}
    draw(found, wanted, untaught, typology)
    lines = [
        "| labels of it | fraud labels of all kinds | average precision | of the model trained with it |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {mark} | {known:,} | {found[mark]:.3f} | {ratio_with_interval(y, scores[mark], best, who)} |"
        for mark, (known, _) in snapshots.items()
    ]
    lines += [
        f"| trees that never saw it | | {untaught:.3f} | {untaught / wanted:.0%} |",
        f"| trees trained with it | | {wanted:.3f} | 100% |",
        "",
        f"`{typology}` from day {first_day} of a bank ({customers:,} customers, seed {settings.seed}), "
        f"{int(y.sum()):,} transactions of it among {len(y):,} behind the last label; both trees learned "
        f"from {first_day} days. Trees were grown anew {scorer.learning.grown} times.",
    ]
    return lines


def draw(found: dict[int, float], wanted: float, untaught: float, typology: str) -> None:
    """The curve as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "tidegate"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.6))
    axes.plot(list(found), list(found.values()), marker="o", label="trees and what labels taught since")
    axes.axhline(wanted, color="black", linewidth=1, label="trees trained with it")
    axes.axhline(0.8 * wanted, color="grey", linestyle=":", label="80 % of that")
    axes.axhline(untaught, color="grey", linewidth=1, label="trees that never saw it")
    axes.set_xlabel("labels of it")
    axes.set_ylabel(f"average precision on {typology.replace('_', ' ')}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.tight_layout()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)


def written(name: str, lines: list[str]) -> Iterator[str]:
    """The document with one part new."""
    begin, end, inside = f"<!-- {name} -->", f"<!-- end of {name} -->", False
    for line in DOCS.read_text().splitlines():
        if line == end:
            inside = False
        if not inside:
            yield line
        if line == begin:
            inside = True
            yield from lines


_PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "typologies": lambda asked: typologies(*asked.sizes, asked.seeds),
    "columns": lambda asked: columns("compromised_merchant", asked.seed or 21),
    "terminals": lambda asked: columns("compromised_terminal", asked.seed or 21),
    "online": lambda asked: online(asked.typology, asked.customers, asked.days, asked.seed or 31),
}


def main() -> None:
    """Write one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=_PARTS)
    parser.add_argument("--sizes", type=int, nargs=2, default=(250, 800))
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103])
    parser.add_argument("--typology", choices=TYPOLOGIES, default="card_testing")
    parser.add_argument("--customers", type=int, default=1200, help="of the bank of `online`")
    parser.add_argument("--days", type=int, default=135, help="of the bank of `online`")
    parser.add_argument("--seed", type=int, help="of the bank of all parts but `typologies`")
    asked = parser.parse_args()
    lines = _PARTS[asked.part](asked)
    print("\n".join(lines))
    DOCS.write_text("\n".join(written(asked.part, lines)) + "\n")


if __name__ == "__main__":
    main()
