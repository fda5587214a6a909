"""`tidegate generate`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, progress
from cli.generated import bank_settings
from generator.bank import Bank
from generator.events import ALL_TYPOLOGIES, ON_REQUEST, TYPOLOGIES
from generator.settings import BankSettings
from infra.bank_files import write_bank
from schemas.errors import ConfigError


def generate(
    out: Annotated[Path, typer.Argument(help="A .parquet, .csv or .jsonl file.")],
    customers: Annotated[int, typer.Option(min=10, help="Customers.")] = 2000,
    days: Annotated[int, typer.Option(min=1, help="Days.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another bank.")] = 7,
    fraud_rate: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of customers drawn into a fraud in 30 days.")
    ] = BankSettings().fraud_rate,
    typology: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A way of fraud that occurs ({', '.join(ALL_TYPOLOGIES)}); may be given several times. "
            f"Without it all but {', '.join(ON_REQUEST)}."
        ),
    ] = None,
    typology_from: Annotated[
        list[str] | None,
        typer.Option(help="First day of a way of fraud: card_testing=60; may be given several times."),
    ] = None,
) -> None:
    """Write a generated bank to a file.

    .parquet and .csv hold transactions with the columns is_fraud, typology, lookalike and label_time
    (empty where no label came); .jsonl holds every message with its topic, as it would be published.
    """
    if out.suffix not in {".parquet", ".csv", ".jsonl"}:
        raise ConfigError(f"{out}: write to a .parquet, .csv or .jsonl file")
    settings = replace(
        bank_settings(customers, days, seed),
        fraud_rate=fraud_rate,
        typologies=tuple(typology or TYPOLOGIES),
        typology_from=dict(map(_first_day, typology_from or ())),
    )
    with progress() as bar:
        task = bar.add_task("days", total=days)
        written = write_bank(
            Bank(settings).events,
            out,
            lambda time_ms: bar.update(task, completed=(time_ms - settings.start_ms) // 86_400_000 + 1),
        )
    err.print(f"wrote {written:,} rows to {out}", highlight=False)


def _first_day(said: str) -> tuple[str, int]:
    name, _, day = said.partition("=")
    if not day.isdigit():
        raise ConfigError(f"--typology-from: {said!r} is not a way of fraud and a day, like card_testing=60")
    return name, int(day)
