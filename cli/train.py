"""`tidegate train`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.generated import bank_settings, parsed
from features.engine import Engine
from generator.bank import Bank
from models.registry import ModelRegistry
from models.replay import replay_for_training
from models.training import train_churn, train_fraud
from models.tree import ModelCard
from schemas.fields import to_rfc3339
from schemas.label import Label
from schemas.transaction import Transaction


class Which(StrEnum):
    """What to train."""

    FRAUD = "fraud"
    CHURN = "churn"
    ALL = "all"


def train(
    which: Annotated[Which, typer.Argument(help="The model, or all.")] = Which.ALL,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")
    ] = Path(".tidegate/models"),
    customers: Annotated[int, typer.Option(min=10, help="Customers of the generated bank.")] = 1500,
    days: Annotated[int, typer.Option(min=100, help="Days of generated history.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated bank and of training.")] = 11,
    horizon_days: Annotated[int, typer.Option(min=7, help="Silence that counts as churn.")] = 30,
    label_delay_days: Annotated[int, typer.Option(min=0, help="Newest days left out of fraud training.")] = 7,
    promote: Annotated[bool, typer.Option(help="Put the new model into use.")] = True,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train on generated history, replayed through the engine that serves."""
    cards = train_models(
        models,
        which,
        customers=customers,
        days=days,
        seed=seed,
        horizon_days=horizon_days,
        label_delay_days=label_delay_days,
        promote=promote,
    )
    source = cards[0].data["source"]
    if json:
        print_json(
            [{"name": c.name, "version": c.version, "metrics": c.metrics, "data": c.data} for c in cards]
        )
        return
    table = Table("model", "version", "rows", "positives", "average precision", "ROC AUC", title=source)
    for c in cards:
        m = c.metrics
        table.add_row(
            c.name,
            c.version,
            str(m["rows"]),
            str(m["positives"]),
            f"{m['average_precision']:.3f}",
            f"{m['roc_auc']:.3f}",
        )
    out.print(table)
    err.print(f"saved under {models}{' and put into use' if promote else ''}; figures are of held-back days")


def train_models(
    models: Path,
    which: Which = Which.ALL,
    *,
    customers: int = 1500,
    days: int = 180,
    seed: int = 11,
    horizon_days: int = 30,
    label_delay_days: int = 7,
    promote: bool = True,
) -> list[ModelCard]:
    """Train on a generated bank, save and promote."""
    settings = bank_settings(customers, days, seed)
    engine = Engine()
    created_at = to_rfc3339(datetime.now(UTC))
    source = f"generated bank: {customers} customers, {days} days, seed {seed}"
    with progress() as bar:
        task = bar.add_task("replaying history (days)", total=days)

        def messages() -> Iterator[Transaction | Label]:
            for event in Bank(settings).events():
                bar.update(task, completed=(event.time_ms - settings.start_ms) // 86_400_000 + 1)
                message = parsed(event)
                if isinstance(message, Transaction | Label):
                    yield message

        data = replay_for_training(messages(), engine, horizon_days=horizon_days)
        trained = []
        if which is not Which.CHURN:
            rounds = bar.add_task("training fraud (trees)", total=None)
            trained.append(
                train_fraud(
                    data,
                    engine,
                    created_at=created_at,
                    label_delay_days=label_delay_days,
                    seed=seed,
                    source=source,
                    on_round=lambda done, total: bar.update(rounds, completed=done, total=total),
                )
            )
        if which is not Which.FRAUD:
            churn_rounds = bar.add_task("training churn (trees)", total=None)
            trained.append(
                train_churn(
                    data,
                    engine,
                    created_at=created_at,
                    horizon_days=horizon_days,
                    seed=seed,
                    source=source,
                    on_round=lambda done, total: bar.update(churn_rounds, completed=done, total=total),
                )
            )
    registry = ModelRegistry(models)
    cards = [registry.save(card, trees) for card, trees in trained]
    for card in cards:
        if promote:
            registry.promote(card.name, card.version)
    return cards
