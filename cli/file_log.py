"""A file of transactions as one log in time order, for commands that look at it as a whole."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import Progress

from cli.console import err
from features.attributes import BALANCES, names_of
from features.engine import Engine
from features.entities import ENTITIES
from infra.feature_file import load_engine
from infra.intake import Account, RefusedRow
from infra.mapping import Mapping
from infra.row_batches import Job, RowBatches
from models.tree import ModelCard
from models.vectors import Rows, in_time_order
from schemas.errors import ConfigError


def read_log(
    data: Path, mapping: Mapping, engine: Engine, bar: Progress, *, exact: bool = False
) -> tuple[Rows, Account]:
    """Read all of a file; rows that cannot become transactions are counted and left out.

    Args:
        data: The file.
        mapping: What its columns mean.
        engine: Says which attributes are wanted.
        bar: Shows how far it is.
        exact: Whether attributes are to be shown, not only read by models: twice their memory.

    Raises:
        ConfigError: It is no table, lacks columns of the mapping or attributes of the engine, or has no row
            that can be used.
    """
    check_attributes(engine, mapping)
    job = Job(data, mapping, now_ms=int(time.time() * 1000), attributes=engine.attributes)
    task = bar.add_task("reading (percent)", total=100)
    with RowBatches(job, lambda row: None) as batches:

        def read() -> Iterator[Rows]:
            for rows in batches:
                bar.update(task, completed=round(100 * batches.progress))
                yield rows

        rows = in_time_order(read(), np.float64 if exact else np.float32)
        account = batches.account
    if not len(rows):
        first = account.first_refused[0] if account.first_refused else None
        why = f"; the first one, {first.place}: {first.reason}" if first else ""
        raise ConfigError(
            f"{data}: none of its {account.rows:,} rows can be used ({account.refused:,} refused, "
            f"{account.skipped:,} skipped by the mapping){why}"
        )
    if corrected := corrections(rows):
        err.print(
            f"{corrected:,} of {len(rows):,} rows repeat a customer's transaction_id with another amount "
            "and count as corrections: only one of them is kept. Is it the number of an invoice? Then read "
            "transaction_id from the number of the row (row_number)",
            highlight=False,
            soft_wrap=True,
        )
    return rows, account


def corrections(rows: Rows) -> int:
    """Rows that repeat the id of a customer's transaction with another amount."""
    order = np.argsort(rows.records["transaction"], kind="stable")
    ids, amounts = rows.records["transaction"][order], rows.records["amount_minor"][order]
    repeated = np.flatnonzero((ids[1:] == ids[:-1]) & (amounts[1:] != amounts[:-1]))
    pairs = zip(order[repeated].tolist(), order[repeated + 1].tolist(), strict=True)
    return sum(rows.customer_ids[one] == rows.customer_ids[other] for one, other in pairs)


def engine_of(card: ModelCard, features: Path | None) -> Engine:
    """The engine that a model was trained with.

    Args:
        card: Of the model; says which entities and attributes it knows.
        features: YAML file of the bank's own declarations; `None`: only the catalogue.

    Raises:
        ConfigError: The declarations are not those of training.
    """
    entities, attributes = (str(card.data.get(name, "")) for name in ("entities", "attributes"))
    engine = load_engine(features, entities, attributes)
    if card.features_hash != engine.hash:
        raise ConfigError(
            f"the model was trained on feature declarations {card.features_hash}, this program runs "
            f"{engine.hash}: give the --features file of training, or train it again "
            f"(tidegate train {card.name})"
        )
    return engine


def print_refused(account: Account) -> None:
    """Say how many rows were refused, and which were the first."""
    if account.refused:
        err.print(
            f"{account.refused:,} of {account.rows:,} rows were refused, the first of them:", highlight=False
        )
        for row in account.first_refused:
            err.print(f"  {place_and_reason(row)}", highlight=False, markup=False, soft_wrap=True)


def place_and_reason(row: RefusedRow) -> str:
    """A refused row in words."""
    return f"{row.place}: {row.reason}"


def check_attributes(engine: Engine, mapping: Mapping) -> None:
    """Refuse to look for attributes in a file where the mapping finds none: all would be unknown.

    Raises:
        ConfigError: Names them.
    """
    chosen = set(names_of(engine.attributes))
    if missing := sorted(chosen - mapping.attributes.keys() - mapping.fields.keys()):
        raise ConfigError(
            f"{mapping.source}: the model is to read {', '.join(missing)} of each transaction, and no column "
            "is said to be that: name it under attributes, a balance as a field"
        )


def check_entities(engine: Engine, mapping: Mapping) -> None:
    """Refuse to look for entities in a file where the mapping finds none: all of theirs would be unknown.

    For models of transactions only: one of customers reads nothing of entities, and another file will do.

    Raises:
        ConfigError: Names them.
    """
    fields = {f"{feature.entity}_id" for feature in engine.entities}
    if missing := sorted(fields - mapping.fields.keys()):
        raise ConfigError(
            f"{mapping.source}: the model is to read {', '.join(missing)} of each transaction, and no column "
            "is said to be that: name it as a field"
        )


def attributes_of(mapping: Mapping) -> str:
    """Balances and attributes that the mapping reads from the file, as settings name them.

    A balance after a transaction alone says little: it counts where the one before is there too.
    """
    balances = [name for name in BALANCES if name in mapping.fields and "balance_before" in mapping.fields]
    return ",".join((*balances, *mapping.attributes))


def entities_of(mapping: Mapping) -> str:
    """Entities whose ids the mapping reads from the file, as settings name them."""
    return ",".join(
        name
        for name in (entity.name for entity in ENTITIES)
        if f"{name}_id" in mapping.fields and not mapping.fields[f"{name}_id"].is_constant
    )
