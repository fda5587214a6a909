"""A file's history, replayed once, and the rows of it on which models are compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import Progress
from rich.table import Table

from cli.console import out
from features.definitions import DAY_MS
from features.engine import Engine
from infra.intake import Intake
from infra.mapping import Mapping
from infra.row_mapper import label_message
from models.contest import Contest, Labels, codes_of
from models.replay import TrainingData, replay_for_training
from models.tree import TreeModel, Vector
from schemas.label import Label
from schemas.parse import parse_message
from schemas.transaction import Transaction

_BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class Replayed:
    """Vectors of a file, and whose they are.

    Attributes:
        customers: By transaction id.
    """

    data: TrainingData
    customers: dict[str, str]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Rows on which models are compared.

    Attributes:
        X: `(n, n_features)`.
        y: `(n,)` outcomes.
        customer: `(n,)` codes.
    """

    X: npt.NDArray[np.float32]
    y: Labels
    customer: npt.NDArray[np.intp]


def replay_file(data: Path, mapping: Mapping, engine: Engine, horizon_days: int, bar: Progress) -> Replayed:
    """Replay a file in time order; rows that cannot become transactions are left out."""
    customers: dict[str, str] = {}
    task = bar.add_task("replaying history (percent)", total=100)
    with Intake(data, mapping) as intake:

        def messages() -> Iterator[Transaction | Label]:
            for number, event in enumerate(intake):
                if number % 1000 == 0:
                    bar.update(task, completed=round(100 * intake.progress()))
                customers[event.transaction.transaction_id] = event.transaction.customer_id
                yield event.transaction
                if event.label is not None:
                    yield parse_message(Label, label_message(event.transaction, event.label))

        replayed = replay_for_training(messages(), engine, horizon_days=horizon_days)
    bar.update(task, completed=100)
    return Replayed(replayed, customers)


def known_until(data: TrainingData, name: str, label_delay_days: int, horizon_days: int) -> int:
    """Time before which outcomes are known: of frauds after their label delay, of churn after its horizon."""
    return data.end_ms - (label_delay_days if name == "fraud" else horizon_days) * DAY_MS


def held_back(replayed: Replayed, name: str, from_ms: int, until_ms: int) -> HeldBack:
    """Rows of `[from_ms, until_ms)`, with what is known of them at the end of the file."""
    data = replayed.data
    if name == "fraud":
        rows = np.flatnonzero((data.time_ms >= from_ms) & (data.time_ms < until_ms))
        ids = [data.transaction_ids[row] for row in rows.tolist()]
        known = [data.fraud_known_ms.get(i, data.end_ms + 1) <= data.end_ms for i in ids]
        customer = codes_of([replayed.customers[i] for i in ids])
        return HeldBack(data.X[rows], np.array(known, dtype=np.bool_), customer)
    rows = np.flatnonzero((data.churn_as_of_ms >= from_ms) & (data.churn_as_of_ms <= until_ms))
    customer = codes_of([data.churn_customers[row] for row in rows.tolist()])
    return HeldBack(data.churn_X[rows], data.churned[rows], customer)


def probabilities(model: TreeModel, X: npt.NDArray[np.float32]) -> Vector:
    """Probabilities of many rows, some at once."""
    blocks = [model.predict_proba(X[i : i + _BLOCK].astype(np.float64)) for i in range(0, len(X), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.empty(0)


def print_contest(found: Contest, first: str, second: str) -> None:
    """Figures of two versions side by side, with their 95 % intervals."""
    if not found.difference:
        return
    table = Table("measure", first, second, "difference")
    for name in found.difference:
        figures = (found.champion[name], found.challenger[name], found.difference[name])
        table.add_row(name, *(f"{f.value:.4f} ({f.low:.4f} to {f.high:.4f})" for f in figures))
    out.print(table)
