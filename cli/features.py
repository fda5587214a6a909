"""`tidegate features`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.file_log import check_attributes
from features.attributes import BALANCES, attribute_features
from features.catalogue import FEATURES
from features.definitions import Feature, declaration_hash
from features.describe import attributes_markdown, entities_markdown, lifetime_markdown, markdown, window
from features.entities import EntityFeature
from features.entity_features import ENTITY_FEATURES
from features.kernels import DUPLICATE
from infra.feature_file import Declared, load_engine, read_declarations
from infra.intake import bad_rows_file
from infra.mapping import Mapping
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Feature declarations, and the vectors of a file.")


@app.callback()
def features() -> None:
    """Feature declarations, and the vectors of a file."""


@app.command(name="list")
def list_features(
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, listed too."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/features.md.")] = False,
) -> None:
    """Print the features with window, unit and meaning."""
    own = read_declarations(features) if features is not None else Declared()
    of_customers = tuple(map(own.clock.say, (*FEATURES, *own.customer)))
    of_entities = (*ENTITY_FEATURES, *own.entity)
    every: tuple[Feature | EntityFeature, ...] = (*of_customers, *of_entities)
    if as_markdown:
        from features.lifetime import LIFETIME

        own_markdown = markdown(of_customers) + lifetime_markdown(LIFETIME)
        balances = attributes_markdown(attribute_features(",".join(BALANCES)))
        print(own_markdown + entities_markdown(of_entities) + balances, end="")
    elif json:
        print_json(
            [
                {
                    "name": f.name,
                    "category": f.category,
                    "op": f.op,
                    "window": f.window,
                    "ends": f.ends,
                    "unit": f.unit,
                    "meaning": f.meaning,
                }
                for f in every
            ]
        )
    else:
        table = Table(
            "feature",
            "category",
            "window",
            "unit",
            "meaning",
            title=f"declarations {declaration_hash(of_customers)}",
        )
        for f in every:
            table.add_row(f.name, f.category, window(f), f.unit, f.meaning)
        out.print(table)


@app.command()
def compute(
    data: Annotated[Path, typer.Option(help="A .csv, .csv.gz or .parquet file of transactions.")],
    mapping: Annotated[Path, typer.Option(help="YAML file that says which column is what.")],
    out_file: Annotated[Path, typer.Option("--out", help="The Parquet file to write; replaced at the end.")],
    labels_delay: Annotated[
        str | None,
        typer.Option(
            help="When a label of the file becomes known, after its event: 7d, 12h. "
            "Without it what the mapping says, which is 7d unless it says otherwise.",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, computed too."),
    ] = None,
    entities: Annotated[
        str,
        typer.Option(
            envvar="TIDEGATE_ENTITIES", help="Entities with features: merchant,device,counterparty."
        ),
    ] = "",
    attributes: Annotated[
        str,
        typer.Option(
            envvar="TIDEGATE_ATTRIBUTES",
            help="Balances and attributes as columns: balance_before, balance_after, names of attributes.",
        ),
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many transactions.")] = None,
    bad_rows: Annotated[
        Path | None, typer.Option("--bad-rows", help="CSV file for all refused rows, with the reasons.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the feature vector of every transaction of a file, as the worker would compute it.

    One row per accepted transaction, in the order of the file: transaction_id, customer_id, event_time and
    one column per feature; unknown is null. Rows go the way of `publish` and events the way of the worker:
    in the order of the file, as a log of it would have them. Sort a file by time first if its order means
    nothing: a row that comes after later ones of its customer is a late event, as in the stream.

    Labels of the mapping enter the customer's history when they become known, and features see them from
    then on. Rows that cannot become transactions, and transactions that come twice, are counted and left
    out.

    Exit codes: 0; 1 when no row was accepted; 2 for a wrong mapping or file. OUT appears when everything is
    in it, and not before. Memory grows with the customers' kept histories (120 days), not with the file.
    """
    # Arrow takes a third of a second to import: `features list` does without.
    from infra.row_batches import Job, RowBatches
    from infra.vector_file import VectorFile
    from models.vectors import VectorReplay

    rules = Mapping.load(mapping).with_delay(labels_delay)
    if data.exists() and out_file.exists() and out_file.samefile(data):
        raise ConfigError(f"{out_file}: is the file to read; write to another one")
    started, duplicates = time.monotonic(), 0
    engine = load_engine(features, entities, attributes)
    check_attributes(engine, rules)
    replay = VectorReplay(engine)
    job = Job(
        data,
        rules,
        now_ms=int(time.time() * 1000),
        limit=limit,
        attributes=engine.attributes,
        every_refused=bad_rows is not None,
    )
    with (
        bad_rows_file(bad_rows) as write_bad_row,
        RowBatches(job, write_bad_row) as batches,
        VectorFile(out_file, engine) as written,
        progress() as bar,
    ):
        task = bar.add_task("computing", total=None)
        for rows in batches:
            for vectors in replay.feed(rows):
                duplicates += int((vectors.features.status == DUPLICATE).sum())
                written.write(vectors)
            done, share = batches.account.rows, batches.progress
            bar.update(task, completed=done, total=int(done / share) if share else None)
        replay.finish()
    seconds = time.monotonic() - started
    account = batches.account
    summary: dict[str, Any] = {
        "file": str(data),
        "mapping": str(mapping),
        "out": str(out_file),
        "features": len(engine.names),
        "declarations": engine.hash,
        "rows": account.rows,
        "written": written.rows,
        "duplicates": duplicates,
        "skipped": account.skipped,
        "refused": account.refused,
        "reasons": dict(account.reasons.most_common()),
        "first_refused": [row._asdict() for row in account.first_refused],
        "labels": replay.labels_put,
        "labels_unknown": replay.labels_unknown,
        "seconds": round(seconds, 3),
        "rows_per_second": round(account.rows / seconds) if seconds else 0,
    }
    if json:
        print_json(summary)
    else:
        _print_computed(summary, [f"{row.place}: {row.reason}" for row in account.first_refused])
    if not written.rows:
        err.print("no row was accepted", highlight=False)
        raise typer.Exit(1)


def _print_computed(summary: dict[str, Any], refused: list[str]) -> None:
    table = Table(show_header=False)
    names = {
        "rows": "rows",
        "written": "vectors written",
        "features": "features each",
        "duplicates": "transactions that came again",
        "skipped": "skipped on purpose",
        "refused": "refused",
        "labels": "labels",
        "labels_unknown": "labels of transactions not kept",
        "rows_per_second": "rows/s",
    }
    for key, name in names.items():
        table.add_row(name, f"{summary[key]:,}")
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    out.print(table)
    out.print(f"written to {escape(summary['out'])}", highlight=False, soft_wrap=True)
    if refused:
        out.print("the first refused rows:")
        for line in refused:
            out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
