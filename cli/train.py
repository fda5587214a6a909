"""`tidegate train`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.generated import bank_settings, parsed
from features.engine import Engine
from features.entities import entity_features
from generator.bank import Bank
from generator.settings import BankSettings
from infra.intake import Intake
from infra.mapping import Mapping
from infra.row_mapper import label_message
from models.drift import with_reference
from models.registry import SEGMENTS, ModelRegistry
from models.replay import replay_for_training
from models.segments import MEANINGS, train_segments
from models.training import train_churn, train_fraud
from models.tree import ModelCard
from schemas.errors import ConfigError
from schemas.fields import to_rfc3339
from schemas.label import Label
from schemas.parse import parse_message
from schemas.transaction import Transaction


class Which(StrEnum):
    """What to train."""

    FRAUD = "fraud"
    CHURN = "churn"
    SEGMENTS = "segments"
    ALL = "all"


def train(
    which: Annotated[Which, typer.Argument(help="The model, or all.")] = Which.ALL,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")
    ] = Path(".tidegate/models"),
    data: Annotated[
        Path | None, typer.Option(help="Your own CSV or Parquet instead of a generated bank.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file that says which column is what.")] = None,
    customers: Annotated[int, typer.Option(min=10, help="Customers of the generated bank.")] = 1500,
    days: Annotated[int, typer.Option(min=100, help="Days of generated history.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated bank and of training.")] = 11,
    horizon_days: Annotated[int, typer.Option(min=7, help="Silence that counts as churn.")] = 30,
    label_delay_days: Annotated[int, typer.Option(min=0, help="Newest days left out of fraud training.")] = 7,
    promote: Annotated[bool, typer.Option(help="Put the new model into use.")] = True,
    entities: Annotated[
        str,
        typer.Option(
            envvar="TIDEGATE_ENTITIES",
            help="Entities with features, as the worker has: merchant,device or none.",
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train on history, generated or your own, replayed through the engine that serves."""
    if (data is None) != (mapping is None):
        raise ConfigError("--data and --mapping go together: the file, and what its columns mean")
    plan = TrainingPlan(models, which, seed, horizon_days, label_delay_days, promote, entities)
    if data is not None and mapping is not None:
        cards = train_on_file(plan, data, Mapping.load(mapping))
    else:
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
        if c.name != SEGMENTS:
            table.add_row(
                c.name,
                c.version,
                str(m["rows"]),
                str(m["positives"]),
                f"{m['average_precision']:.3f}",
                f"{m['roc_auc']:.3f}",
            )
    if table.row_count:
        out.print(table)
    for c in cards:
        if c.name == SEGMENTS:
            out.print(segment_table(c))
    err.print(f"saved under {models}{' and put into use' if promote else ''}; figures are of held-back days")


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
    label_delay_days: int = 7
    promote: bool = True
    entities: str = ""


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
    with Intake(data, mapping) as intake, progress() as bar:
        task = bar.add_task("replaying history (percent)", total=100)

        def messages() -> Iterator[Transaction | Label]:
            for number, event in enumerate(intake):
                if number % 1000 == 0:
                    bar.update(task, completed=round(100 * intake.progress()))
                yield event.transaction
                if event.label is not None:
                    yield parse_message(Label, label_message(event.transaction, event.label))

        cards = _train(plan, messages(), data.name, bar)
    if intake.account.refused:
        err.print(
            f"{intake.account.refused:,} of {intake.account.rows:,} rows were refused, the first of them:"
        )
        for row in intake.account.first_refused:
            err.print(f"  {row.place}: {row.reason}", highlight=False)
    return cards


def _train(
    plan: TrainingPlan, messages: Iterator[Transaction | Label], source: str, bar: Progress
) -> list[ModelCard]:
    engine = Engine(entities=entity_features(plan.entities))
    created_at = to_rfc3339(datetime.now(UTC))
    data = replay_for_training(messages, engine, horizon_days=plan.horizon_days)
    trained = []

    def rounds(name: str) -> Callable[[int, int], None]:
        task = bar.add_task(f"training {name} (trees)", total=None)
        return lambda done, total: bar.update(task, completed=done, total=total)

    if plan.which in (Which.FRAUD, Which.ALL):
        trained.append(
            train_fraud(
                data,
                engine,
                created_at=created_at,
                label_delay_days=plan.label_delay_days,
                seed=plan.seed,
                source=source,
                on_round=rounds("fraud"),
            )
        )
    if plan.which in (Which.CHURN, Which.ALL):
        trained.append(
            train_churn(
                data,
                engine,
                created_at=created_at,
                horizon_days=plan.horizon_days,
                seed=plan.seed,
                source=source,
                on_round=rounds("churn"),
            )
        )
    if plan.which in (Which.SEGMENTS, Which.ALL):
        trained.append(
            train_segments(
                data.churn_X.astype(np.float64),
                data.churn_as_of_ms,
                engine,
                created_at=created_at,
                seed=plan.seed,
                source=source,
            )
        )
    registry = ModelRegistry(plan.models)
    cards = []
    for card, trees in trained:
        if card.name != SEGMENTS:
            learned = data.X if card.name == "fraud" else data.churn_X
            card = with_reference(card, trees, learned, engine.names)
        cards.append(registry.save(card, trees))
    for card in cards:
        if plan.promote:
            registry.promote(card.name, card.version)
    return cards
