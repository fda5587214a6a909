"""`tidegate train`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from cli.churn import ChurnTraining, train_churn_on_rows
from cli.console import err, out, print_json, progress
from cli.durations import days_too, delay_ms, horizon_days_of, search_budget
from cli.file_log import entities_of, print_refused, read_log
from cli.generated import bank_settings, parsed
from features.definitions import DAY_MS
from features.engine import Engine
from generator.bank import Bank
from generator.settings import BankSettings
from infra.cells import moment
from infra.feature_file import load_engine
from infra.intake import Intake
from infra.mapping import Mapping
from infra.row_mapper import label_message
from models.anomaly import ANOMALY, train_anomaly
from models.churn import train_churn
from models.costs import Costs
from models.fraud_training import FraudData, memory_of, train_fraud, vectors_of
from models.registry import NAMES, SEGMENTS, ModelRegistry
from models.relearning import Memory
from models.replay import TrainingData, replay_for_training
from models.segments import MEANINGS, train_segments
from models.tree import ModelCard
from models.tuning import Budget
from schemas.errors import ConfigError, ModelError
from schemas.fields import to_epoch_ms, to_rfc3339
from schemas.label import Label
from schemas.parse import parse_message
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

# More than one transaction in a hundred no team looks at, even where it would pay.
_COSTS = Costs(alerts_share=0.01)


class Which(StrEnum):
    """What to train."""

    FRAUD = "fraud"
    CHURN = "churn"
    SEGMENTS = "segments"
    ANOMALY = "anomaly"
    ALL = "all"


def train(
    which: Annotated[Which, typer.Argument(help="The model, or all.")] = Which.ALL,
    models: Annotated[
        Path,
        typer.Option("--models", "--out", envvar="TIDEGATE_MODELS", help="Folder of the model registry."),
    ] = Path(".tidegate/models"),
    data: Annotated[
        Path | None, typer.Option(help="Your own CSV or Parquet instead of a generated bank.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file that says which column is what.")] = None,
    customers: Annotated[int, typer.Option(min=10, help="Customers of the generated bank.")] = 1500,
    days: Annotated[int, typer.Option(min=100, help="Days of generated history.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated bank and of training.")] = 11,
    horizon: Annotated[
        str, typer.Option("--horizon", "--horizon-days", help="Silence that counts as churn, in days: 30d.")
    ] = "30d",
    cut_off: Annotated[
        list[str] | None,
        typer.Option(
            help="Learn churn from customers as of this time (UTC); may be given several times. "
            "Without it weekly, the last one horizon before the end. With --data only."
        ),
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            "--label-delay",
            "--label-delay-days",
            help="How long after a transaction its label is known, like 7d: newer ones are not learned from. "
            "Without it what the mapping says, which is 7d unless it says otherwise.",
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Learn from transactions since this time (UTC); earlier ones are history."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Use nothing of this time or later, and no label known later."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Search the fraud model's hyper-parameters: so many trials (20), or for so long (10m). "
            "Without it good defaults.",
        ),
    ] = None,
    review_cost: Annotated[
        float, typer.Option(help="Of an analyst's look at one alert, in the currency of the transactions.")
    ] = _COSTS.review,
    refusal_cost: Annotated[
        float, typer.Option(help="Of refusing a good customer's payment, beside that the customer may leave.")
    ] = _COSTS.refusal,
    alerts_a_day: Annotated[
        float | None, typer.Option(help="The most alerts a day; without it one transaction in a hundred.")
    ] = None,
    anomaly_alerts: Annotated[
        float,
        typer.Option(
            min=0, max=0.1, help="Share of transactions that are to raise an alert as an anomaly; 0: none."
        ),
    ] = 0.001,
    promote: Annotated[bool, typer.Option(help="Put the new model into use.")] = True,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the worker has."),
    ] = None,
    entities: Annotated[
        str | None,
        typer.Option(
            envvar="TIDEGATE_ENTITIES",
            help="Entities with features: merchant,device or none, and the worker must have the same. "
            "Without it those whose ids the mapping reads; of a generated bank none.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train on history, generated or your own, replayed through the engine that serves."""
    if (data is None) != (mapping is None):
        raise ConfigError("--data and --mapping go together: the file, and what its columns mean")
    plan = TrainingPlan(
        models,
        which,
        seed,
        horizon_days_of(horizon),
        promote=promote,
        entities="" if entities in (None, "none") else str(entities),
        from_ms=None if from_ is None else to_epoch_ms(moment(from_)),
        to_ms=None if to is None else to_epoch_ms(moment(to)),
        budget=search_budget(budget),
        features=features,
        anomaly_alerts=anomaly_alerts,
        costs=Costs(
            review=review_cost,
            refusal=refusal_cost,
            alerts_a_day=alerts_a_day,
            alerts_share=_COSTS.alerts_share,
        ),
    )
    if data is not None and mapping is not None:
        rules = Mapping.load(mapping).with_delay(days_too(label_delay))
        if entities is None:
            plan = replace(plan, entities=entities_of(rules))
        if rules.label is not None:
            plan = replace(plan, label_delay_ms=rules.label_delay_ms)
        if cut_off and which is not Which.CHURN:
            raise ConfigError("--cut-off is for training churn")
        if which is Which.CHURN:
            cut_offs = [to_epoch_ms(moment(one)) for one in cut_off or ()]
            cards = train_churn_alone(plan, data, rules, cut_offs)
        else:
            run = {Which.FRAUD: train_fraud_on_file, Which.ANOMALY: train_anomaly_on_file}
            cards = run.get(which, train_on_file)(plan, data, rules)
    else:
        if from_ is not None or to is not None or cut_off:
            raise ConfigError("--from, --to and --cut-off go with --data; a generated bank has --days")
        if label_delay is not None:
            plan = replace(plan, label_delay_ms=delay_ms(label_delay))
        cards = train_on_bank(plan, bank_settings(customers, days, seed))
    if json:
        print_json(
            [{"name": c.name, "version": c.version, "metrics": c.metrics, "data": c.data} for c in cards]
        )
        return
    table = Table(
        "model", "version", "rows", "positives", "average precision", "ROC AUC", title=cards[0].data["source"]
    )
    for c in cards:
        m = c.metrics
        if c.name in NAMES:
            table.add_row(
                c.name,
                c.version,
                *(str(m.get(name, "-")) for name in ("rows", "positives")),
                *(f"{m[name]:.3f}" if name in m else "-" for name in ("average_precision", "roc_auc")),
            )
    if table.row_count:
        out.print(table)
    for c in cards:
        if c.name == SEGMENTS:
            out.print(segment_table(c))
        if c.name == ANOMALY:
            out.print(
                f"anomaly {c.version} of {c.data['rows']:,} transactions: "
                f"{c.metrics['alert_share']:.2%} of them would raise an alert",
                highlight=False,
            )
    err.print(f"saved under {models}{' and put into use' if promote else ''}; figures are of held-back days")
    for c in cards:
        for doubt in doubts(c):
            err.print(f"[yellow]{c.name} {c.version}[/] {doubt}", highlight=False, soft_wrap=True)
    if plan.entities:
        err.print(f"run worker and API with TIDEGATE_ENTITIES={plan.entities}", highlight=False)


def doubts(card: ModelCard) -> Iterator[str]:
    """Why a model may be of no use: sentences that go on from its name.

    >>> from dataclasses import replace
    >>> card = ModelCard("fraud", "v1", "", "", (), 1.0, 0.0, {}, {}, {"roc_auc": 0.52, "positives": 100})
    >>> list(doubts(card))
    ['was no better than chance on held-back days (ROC AUC 0.520 of 100 positives)']
    >>> list(doubts(replace(card, metrics={"roc_auc": 0.62, "positives": 100})))
    []
    """
    if card.name not in NAMES:
        return
    auc, positives = card.metrics.get("roc_auc"), card.metrics.get("positives", 0)
    if auc is None:
        why = card.metrics.get("note") or "too few outcomes on held-back days"
        yield f"was not measured: {why}. Look at a backtest before it is used"
    # Twice the largest standard error that an area can have (Birnbaum and Klose 1957): 1 / (2 sqrt(n)).
    elif auc <= 0.5 + 1.0 / max(positives, 1) ** 0.5:
        yield f"was no better than chance on held-back days (ROC AUC {auc:.3f} of {positives:,} positives)"


def segment_table(card: ModelCard) -> Table:
    """Segments, their shares, and how well they are apart."""
    m = card.metrics
    title = (
        f"segments {card.version} of {m['customers']:,} customers: silhouette {m['silhouette']:.2f}, "
        f"stability {m['stability_ari_mean']:.2f} (adjusted Rand index, 5 % quantile "
        f"{m['stability_ari_p05']:.2f} of {m['resamples']} resamples)"
    )
    table = Table("segment", "share", "meaning", title=title)
    for name, share in sorted(m["shares"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{share:.1%}", MEANINGS[name])
    return table


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
    from_ms: int | None = None
    to_ms: int | None = None
    costs: Costs = _COSTS
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
    source = f"generated bank: {settings.customers} customers, {settings.days} days, seed {settings.seed}"
    with progress() as bar:
        task = bar.add_task("replaying history (days)", total=settings.days)

        def messages() -> Iterator[Transaction | Label]:
            for event in Bank(settings).events():
                bar.update(task, completed=(event.time_ms - settings.start_ms) // 86_400_000 + 1)
                message = parsed(event)
                if isinstance(message, Transaction | Label):
                    yield message

        return _train(plan, messages(), source, bar)


def train_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train on a file; rows that cannot become transactions are counted and left out."""
    with Intake(data, mapping, from_ms=plan.from_ms, to_ms=plan.to_ms) as intake, progress() as bar:
        task = bar.add_task("replaying history (percent)", total=100)

        def messages() -> Iterator[Transaction | WireTransaction | Label]:
            for number, event in enumerate(intake):
                if number % 1000 == 0:
                    bar.update(task, completed=round(100 * intake.progress()))
                yield event.transaction
                if event.label is not None:
                    yield parse_message(Label, label_message(event.transaction, event.label))

        cards = _train(plan, messages(), data.name, bar)
    print_refused(intake.account)
    return cards


def train_fraud_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train the fraud model on a file in any order; rows that cannot be used are counted and left out."""
    mapping.check_trains_fraud()
    engine = load_engine(plan.features, plan.entities)
    with progress() as bar:
        vectors = _vectors(plan, data, mapping, engine, bar)
        trained = _fraud(plan, vectors, engine, data.name, bar)
    return _saved(plan, [trained])


def train_anomaly_on_file(plan: TrainingPlan, data: Path, mapping: Mapping) -> list[ModelCard]:
    """Train the anomaly model on a file in any order; no label is looked at."""
    engine = load_engine(plan.features, plan.entities)
    with progress() as bar:
        vectors = _vectors(plan, data, mapping, engine, bar, untold=True)
        trained = _anomaly(plan, vectors, engine, data.name)
    return _saved(plan, [trained])


def _vectors(
    plan: TrainingPlan,
    data: Path,
    mapping: Mapping,
    engine: Engine,
    bar: Progress,
    *,
    untold: bool = False,
) -> FraudData:
    rows, account = read_log(data, mapping, bar)
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
    print_refused(account)
    return found


def train_churn_alone(
    plan: TrainingPlan, data: Path, mapping: Mapping, cut_offs: list[int]
) -> list[ModelCard]:
    """Train the churn model on a file in any order."""
    engine = load_engine(plan.features, plan.entities)
    what = ChurnTraining(
        data.name, plan.horizon_days, plan.from_ms, plan.to_ms, cut_offs, plan.entities, plan.seed
    )
    with progress() as bar:
        rows, account = read_log(data, mapping, bar)
        print_refused(account)
        trained = Trained(*train_churn_on_rows(what, rows, engine, bar))
    return _saved(plan, [trained])


def _train(
    plan: TrainingPlan, messages: Iterator[Transaction | WireTransaction | Label], source: str, bar: Progress
) -> list[ModelCard]:
    engine = load_engine(plan.features, plan.entities)
    created_at = to_rfc3339(datetime.now(UTC))
    data = replay_for_training(messages, engine, horizon_days=plan.horizon_days)
    trained: list[Trained] = []

    if plan.which in (Which.FRAUD, Which.ALL):
        trained.append(_fraud(plan, FraudData.of(data), engine, source, bar))
    if plan.which in (Which.CHURN, Which.ALL):
        churn = train_churn(
            data.churn_rows,
            engine,
            created_at=created_at,
            horizon_days=plan.horizon_days,
            seed=plan.seed,
            source=source,
            entities=plan.entities,
            on_round=_rounds(bar, "churn"),
        )
        trained.append(Trained(*churn))
    if plan.which in (Which.SEGMENTS, Which.ALL):
        segments = train_segments(
            data.churn_X.astype(np.float64),
            data.churn_as_of_ms,
            engine,
            created_at=created_at,
            seed=plan.seed,
            source=source,
        )
        trained.append(Trained(*segments))
    if plan.which in (Which.ANOMALY, Which.ALL):
        try:
            trained.append(_anomaly(plan, data, engine, source))
        except ModelError as refused:
            if plan.which is Which.ANOMALY:
                raise
            # The others do without it.
            err.print(f"no anomaly model: {refused}", highlight=False, soft_wrap=True)
    return _saved(plan, trained)


def _anomaly(plan: TrainingPlan, data: FraudData | TrainingData, engine: Engine, source: str) -> Trained:
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
