"""Training by a plan, on a generated bank or on a file, into the registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.progress import Progress

from cli.churn import ChurnTraining, churn_rows_of, train_churn_of, train_churn_on_rows
from cli.console import err, progress
from cli.file_log import check_entities, print_refused, read_log
from cli.generated import parsed
from features.definitions import DAY_MS
from features.engine import Engine
from generator.bank import Bank
from generator.settings import BankSettings
from infra.feature_file import load_engine
from infra.mapping import Mapping
from models.anomaly import ANOMALY, train_anomaly
from models.churn import ChurnRows, of_late
from models.costs import Costs
from models.fraud_data import FraudData, vectors_of
from models.fraud_training import memory_of, train_fraud
from models.log_rows import rows_of_messages
from models.registry import NAMES, SEGMENTS, ModelRegistry
from models.relearning import Memory
from models.segments import train_segments
from models.tree import ModelCard
from models.tuning import Budget
from models.vectors import GENUINE, Rows
from schemas.errors import ModelError
from schemas.fields import to_rfc3339
from schemas.label import Label
from schemas.transaction import Transaction

COSTS: Final = Costs(alerts_share=0.01)
"""Unless told otherwise. More than one transaction in a hundred no team looks at, even where it would pay."""


class Which(StrEnum):
    """What to train."""

    FRAUD = "fraud"
    CHURN = "churn"
    SEGMENTS = "segments"
    ANOMALY = "anomaly"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is trained and where it goes."""

    models: Path
    which: Which = Which.ALL
    seed: int = 11
    horizon_days: int = 30
    label_delay_ms: int = 7 * DAY_MS
    promote: bool = True
    entities: str = ""
    attributes: str = ""
    from_ms: int | None = None
    to_ms: int | None = None
    costs: Costs = COSTS
    budget: Budget | None = None
    features: Path | None = None
    anomaly_alerts: float = 0.001


class Trained(NamedTuple):
    """A model, and what it remembers of what it was trained on."""

    card: ModelCard
    artefact: bytes
    memory: Memory | None = None


def train_on_bank(plan: TrainingPlan, settings: BankSettings) -> list[ModelCard]:
    """Train on a generated bank."""
    _check_writable(plan)
    engine = load_engine(plan.features, plan.entities, plan.attributes)
    source = f"generated bank: {settings.customers} customers, {settings.days} days, seed {settings.seed}"
    with progress() as bar:
        task = bar.add_task("generating history (days)", total=settings.days)

        def messages() -> Iterator[Transaction | Label]:
            for event in Bank(settings).events():
                bar.update(task, completed=(event.time_ms - settings.start_ms) // DAY_MS + 1)
                message = parsed(event)
                if isinstance(message, Transaction | Label):
                    yield message

        rows = rows_of_messages(messages(), engine)
        # An analyst's word for some does not mean that of the others nobody knows.
        return _saved(plan, _trained(plan, rows.frauds_only(), engine, source, bar))


def train_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train all models, or segments, on a file in any order; rows that cannot be used are left out."""
    if plan.which is Which.ALL:
        mapping.check_trains_fraud()
    _check_writable(plan)
    engine = load_engine(plan.features, plan.entities, plan.attributes)
    if plan.which is Which.ALL:
        check_entities(engine, mapping)
    with progress() as bar:
        rows, account = read_log(data, mapping, engine, bar)
        print_refused(account)
        return _saved(plan, _trained(plan, rows, engine, data.name, bar))


def _trained(
    plan: TrainingPlan,
    rows: Rows,
    engine: Engine,
    source: str,
    bar: Progress,
) -> list[Trained]:
    """What the plan asks for, of one log in time order."""
    trained: list[Trained] = []
    if plan.which in (Which.CHURN, Which.SEGMENTS, Which.ALL):
        what = ChurnTraining(source, plan.horizon_days, plan.from_ms, plan.to_ms, (), plan.seed)
        looked_at = churn_rows_of(what, rows, engine, bar)
    if plan.which in (Which.FRAUD, Which.ANOMALY, Which.ALL):
        vectors = _replayed(plan, rows, engine, bar, untold=plan.which is Which.ANOMALY)
    if plan.which in (Which.FRAUD, Which.ALL):
        trained.append(_fraud(plan, vectors, engine, source, bar))
    if plan.which in (Which.CHURN, Which.ALL):
        trained.append(Trained(*train_churn_of(what, looked_at, engine, bar)))
    if plan.which in (Which.SEGMENTS, Which.ALL):
        trained.append(_segments(plan, looked_at, engine, source))
    if plan.which in (Which.ANOMALY, Which.ALL):
        if plan.which is Which.ALL and (rows.labels == GENUINE).any():
            vectors = _replayed(plan, rows, engine, bar, untold=True)
        trained += _anomaly_if_any(plan, vectors, engine, source)
    return trained


def train_fraud_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train the fraud model on a file in any order; rows that cannot be used are counted and left out."""
    mapping.check_trains_fraud()
    _check_writable(plan)
    engine = load_engine(plan.features, plan.entities, plan.attributes)
    with progress() as bar:
        vectors = _vectors(plan, data, mapping, engine, bar)
        trained = _fraud(plan, vectors, engine, data.name, bar)
    return _saved(plan, [trained])


def train_anomaly_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train the anomaly model on a file in any order; no label is looked at."""
    _check_writable(plan)
    engine = load_engine(plan.features, plan.entities, plan.attributes)
    with progress() as bar:
        vectors = _vectors(plan, data, mapping, engine, bar, untold=True)
        trained = _anomaly(plan, vectors, engine, data.name)
    return _saved(plan, [trained])


def _check_writable(plan: TrainingPlan) -> None:
    # Before hours of training.
    registry = ModelRegistry(plan.models)
    for name in (*NAMES, SEGMENTS, ANOMALY) if plan.which is Which.ALL else (plan.which.value,):
        registry.check_writable(name)


def _vectors(
    plan: TrainingPlan,
    data: Path,
    mapping: Mapping,
    engine: Engine,
    bar: Progress,
    *,
    untold: bool = False,
) -> FraudData:
    check_entities(engine, mapping)
    rows, account = read_log(data, mapping, engine, bar)
    found = _replayed(plan, rows, engine, bar, untold=untold)
    print_refused(account)
    return found


def _replayed(
    plan: TrainingPlan, rows: Rows, engine: Engine, bar: Progress, *, untold: bool = False
) -> FraudData:
    task = bar.add_task("replaying history", total=len(rows))
    found = vectors_of(
        rows,
        engine,
        from_ms=plan.from_ms,
        to_ms=plan.to_ms,
        on_rows=lambda done: bar.update(task, completed=done),
        untold=untold,
    )
    bar.update(task, completed=len(found.X), total=len(found.X))
    return found


def train_churn_alone(
    plan: TrainingPlan, data: Path, mapping: Mapping, cut_offs: list[int]
) -> list[ModelCard]:
    """Train the churn model on a file in any order."""
    _check_writable(plan)
    engine = load_engine(plan.features, plan.entities, plan.attributes)
    what = ChurnTraining(data.name, plan.horizon_days, plan.from_ms, plan.to_ms, cut_offs, plan.seed)
    with progress() as bar:
        rows, account = read_log(data, mapping, engine, bar)
        print_refused(account)
        trained = Trained(*train_churn_on_rows(what, rows, engine, bar))
    return _saved(plan, [trained])


def _segments(plan: TrainingPlan, looked_at: ChurnRows, engine: Engine, source: str) -> Trained:
    live = of_late(looked_at.X, engine, plan.horizon_days * DAY_MS)
    return Trained(
        *train_segments(
            looked_at.X[live].astype(np.float64),
            looked_at.as_of_ms[live],
            engine,
            created_at=to_rfc3339(datetime.now(UTC)),
            seed=plan.seed,
            source=source,
        )
    )


def _anomaly_if_any(plan: TrainingPlan, data: FraudData, engine: Engine, source: str) -> list[Trained]:
    try:
        return [_anomaly(plan, data, engine, source)]
    except ModelError as refused:
        if plan.which is Which.ANOMALY:
            raise
        # The others do without it.
        err.print(f"no anomaly model: {refused}", highlight=False, soft_wrap=True)
        return []


def _anomaly(plan: TrainingPlan, data: FraudData, engine: Engine, source: str) -> Trained:
    trained = train_anomaly(
        data.X,
        engine,
        created_at=to_rfc3339(datetime.now(UTC)),
        source=source,
        alert_share=plan.anomaly_alerts,
        data={"from_ms": int(data.time_ms.min(initial=data.end_ms)), "to_ms": data.end_ms},
    )
    return Trained(*trained)


def _fraud(plan: TrainingPlan, data: FraudData, engine: Engine, source: str, bar: Progress) -> Trained:
    delay_days = plan.label_delay_ms / DAY_MS
    trained = train_fraud(
        data,
        engine,
        created_at=to_rfc3339(datetime.now(UTC)),
        label_delay_days=delay_days,
        seed=plan.seed,
        source=source,
        costs=plan.costs,
        budget=plan.budget,
        on_trial=lambda number, best: bar.console.print(
            f"trial {number}: best average precision on later days so far {best:.4f}", highlight=False
        ),
        on_round=_rounds(bar, "fraud"),
    )
    return Trained(*trained, memory_of(data, delay_days))


def _rounds(bar: Progress, name: str) -> Callable[[int, int], None]:
    task = bar.add_task(f"training {name} (trees)", total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)


def _saved(plan: TrainingPlan, trained: list[Trained]) -> list[ModelCard]:
    registry = ModelRegistry(plan.models)
    cards = [registry.save(*one) for one in trained]
    for card in cards:
        if plan.promote:
            registry.promote(card.name, card.version)
    return cards
