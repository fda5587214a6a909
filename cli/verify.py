"""`tidegate verify`."""

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.options import BOOTSTRAP, MODELS, NAMESPACE, REDIS_URL, Bootstrap, Models, Namespace, RedisUrl
from features.engine import Engine
from infra.access import from_environment
from infra.feature_file import load_engine
from infra.history_store import RedisHistoryStore
from infra.verifier import Verifier
from models.differences import Difference, Tally
from models.published_scores import UNPUBLISHED
from models.registry import ModelRegistry

_SHOWN = 20


def verify(
    bootstrap: Bootstrap = BOOTSTRAP,
    redis_url: RedisUrl = REDIS_URL,
    namespace: Namespace = NAMESPACE,
    models: Models = MODELS,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this one; may be given again. All without.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the worker had."),
    ] = None,
    entities: Annotated[
        str, typer.Option(envvar="TIDEGATE_ENTITIES", help="Entities with features: as the worker had.")
    ] = "",
    attributes: Annotated[
        str,
        typer.Option(envvar="TIDEGATE_ATTRIBUTES", help="Attributes that models read: as the worker had."),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Rebuild scores and histories from the topics and compare them bit for bit with what is there.

    Reads transactions, labels, scores.fraud and the dead letters from the start of the log, computes every
    event again with the engine and the model version that each score names, and compares scores, vectors
    where they were published, and the histories in Redis as far as any feature looks at them. Changes
    nothing; a worker may run meanwhile.

    Exit codes: 0 all equal; 1 something differs, the first difference is shown with the history it follows
    from; 2 could not compare: nothing there, no model, Kafka or Redis away.
    """
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    engine = load_engine(features, entities, attributes)
    tally = asyncio.run(_verify(bootstrap, redis_url, namespace, models, engine, partition))
    compared = tally.scores + tally.vectors + tally.histories
    result: dict[str, Any] = {
        "equal": compared > 0 and not tally.differences,
        "differences": tally.differences,
        "transactions": tally.transactions,
        "scores": tally.scores,
        "vectors": tally.vectors,
        "histories": tally.histories,
        "repeats": tally.repeats,
        "not_compared": dict(tally.not_compared),
        "first_difference": None if tally.first is None else asdict(tally.first),
    }
    if json:
        print_json(result)
    else:
        _print(tally)
    if tally.differences:
        raise typer.Exit(1)
    if not tally.histories or not (tally.scores or tally.not_compared.get(UNPUBLISHED)):
        err.print("nothing to compare: no score or no history was found that fits", highlight=False)
        raise typer.Exit(2)


async def _verify(
    bootstrap: str, redis_url: str, namespace: str, models: Path, engine: Engine, only: list[int] | None
) -> Tally:
    kafka, redis = from_environment()
    store = RedisHistoryStore(redis_url, namespace=namespace, options=redis.options(redis_url))
    try:
        with progress() as bar:
            tasks: dict[int, TaskID] = {}

            def show(partition: int, done: int, total: int) -> None:
                if partition not in tasks:
                    tasks[partition] = bar.add_task(f"partition {partition}", total=total)
                bar.update(tasks[partition], completed=done)

            verifier = Verifier(
                bootstrap,
                store,
                ModelRegistry(models),
                engine,
                on_progress=show,
                options=kafka.options(),
            )
            return await verifier.run(only)
    finally:
        await store.close()


def _print(tally: Tally) -> None:
    table = Table(show_header=False)
    table.add_row("transactions rebuilt", f"{tally.transactions:,}")
    table.add_row("scores compared", f"{tally.scores:,}")
    table.add_row("published vectors compared", f"{tally.vectors:,}")
    table.add_row("stored histories compared", f"{tally.histories:,}")
    for reason, count in tally.not_compared.items():
        table.add_row(f"not compared: {reason}", f"{count:,}")
    table.add_row("differences", f"{tally.differences:,}")
    out.print(table)
    if tally.first is not None:
        _print_difference(tally.first)


def _print_difference(first: Difference) -> None:
    where = [f"partition {first.partition}"]
    if first.offset is not None:
        where.append(f"offset {first.offset}")
    if first.customer_id is not None:
        where.append(f"customer {first.customer_id}")
    if first.transaction_id is not None:
        where.append(f"transaction {first.transaction_id}")
    out.print(f"[bold red]first difference: {first.kind}[/], {escape(', '.join(where))}", soft_wrap=True)
    table = Table("what", "found", "rebuilt from the log")
    for name, (found, rebuilt) in list(first.values.items())[:_SHOWN]:
        table.add_row(name, escape(repr(found)), escape(repr(rebuilt)))
    out.print(table)
    if first.history:
        shown = first.history[-_SHOWN:]
        out.print(f"the newest {len(shown)} records it follows from (ids are hashes):")
        for record in shown:
            said = {k: v for k, v in record.items() if v not in (None, 0)}
            out.print(f"  {escape(str(said))}", highlight=False, soft_wrap=True)
