"""`tidegate publish`."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from cli.console import err, out, print_json, progress
from infra.access import from_environment
from infra.cells import moment
from infra.intake import Event, Intake, bad_rows_file
from infra.mapping import Mapping
from infra.pacing import Pacer
from infra.publisher import Publisher
from infra.replay import Published, Replay
from schemas.errors import ConfigError, DependencyError
from schemas.fields import to_epoch_ms
from schemas.topics import LABELS, TRANSACTIONS

_REPORT_EVERY = 1000


def publish(
    file: Annotated[Path, typer.Argument(help="A .csv, .csv.gz or .parquet file.")],
    mapping: Annotated[Path, typer.Option(help="YAML file that says which column is what.")],
    bootstrap: Annotated[
        str, typer.Option(envvar="TIDEGATE_BOOTSTRAP", help="Kafka brokers, HOST:PORT[,HOST:PORT].")
    ] = "127.0.0.1:9092",
    topic: Annotated[str, typer.Option(help="Topic of the transactions.")] = TRANSACTIONS.name,
    rate: Annotated[float | None, typer.Option(help="Messages a second; as fast as it goes without.")] = None,
    speedup: Annotated[
        float | None,
        typer.Option(help="Keep the events' own gaps, divided by this: 3600 is an hour a second."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many transactions.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Leave out events before this time (UTC, or with offset).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Leave out events at or after this time.")] = None,
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="Publish the mapping's labels and closed accounts too, each when it became known.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row, publish none.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A refused row stops the run: exit code 1.")
    ] = False,
    bad_rows: Annotated[
        Path | None, typer.Option("--bad-rows", help="CSV file for all refused rows, with the reasons.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Publish the transactions of anyone's CSV or Parquet file.

    The mapping is checked against the file before any work. A row that cannot become a transaction is
    counted, reported with its line and reason, and left out.

    Exit codes: 0, also when some rows were refused; 1 when none was left to publish, or a row was refused
    under --strict; 2 for a wrong mapping or file, or when Kafka does not answer. --strict stops at the
    first refused row: what came before it is published already, and publishing it again counts nothing
    twice. To have all or nothing, run --dry-run --strict first; it reads on to report every bad row.
    """
    rules = Mapping.load(mapping)
    if labels and rules.label is None and rules.account_closed is None:
        raise ConfigError(f"{mapping}: --labels needs a label or account_closed in the mapping")
    pacer = Pacer(rate=rate, speedup=speedup)
    started = time.monotonic()
    with (
        bad_rows_file(bad_rows) as write_bad_row,
        Intake(
            file,
            rules,
            from_ms=None if from_ is None else to_epoch_ms(moment(from_)),
            to_ms=None if to is None else to_epoch_ms(moment(to)),
            limit=limit,
            now_ms=_now_ms(),
            stop_when_refused=strict and not dry_run,
            on_refused=write_bad_row,
        ) as intake,
        progress() as bar,
    ):
        events = _Shown(intake, bar, bar.add_task("checking" if dry_run else "publishing", total=None))
        published = Published()
        if dry_run:
            for _ in events:
                pass
        else:
            published = asyncio.run(
                _publish(events, bootstrap, pacer, topic, LABELS.name if labels else None)
            )
    seconds = time.monotonic() - started
    account = intake.account
    summary: dict[str, Any] = {
        "file": str(file),
        "mapping": str(mapping),
        "dry_run": dry_run,
        "rows": account.rows,
        "accepted": account.accepted,
        "published": published.transactions,
        "labels_published": published.labels,
        "accounts_closed_published": published.accounts_closed,
        "labels_refused": published.labels_refused,
        "labels_not_yet": published.labels_not_yet,
        "skipped": account.skipped,
        "outside": account.outside,
        "refused": account.refused,
        "reasons": dict(account.reasons.most_common()),
        "first_refused": [row._asdict() for row in account.first_refused],
        "seconds": round(seconds, 3),
        "rows_per_second": round(account.rows / seconds) if seconds else 0,
    }
    if json:
        print_json(summary)
    else:
        _print(summary, [f"{row.place}: {row.reason}" for row in account.first_refused], events.example)
    if account.refused and (strict or not account.accepted):
        raise typer.Exit(1)


async def _publish(
    events: Iterable[Event], bootstrap: str, pacer: Pacer, topic: str, labels_topic: str | None
) -> Published:
    # Our own error says the same, once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    def waiting(error: str, pause_s: float) -> None:
        err.print(f"waiting for Kafka at {bootstrap}: {escape(error)}", highlight=False, soft_wrap=True)

    topics = [topic] if labels_topic is None else [topic, labels_topic]
    kafka, _ = from_environment()
    publisher = Publisher(bootstrap, topics=topics, on_wait=waiting, connection=kafka.options())
    try:
        async with publisher:
            replay = Replay(publisher, pacer, topic=topic, labels_topic=labels_topic, now_ms=_now_ms)
            await replay.run(events)
    except DependencyError as away:
        if not publisher.sent:
            raise
        raise DependencyError(
            f"{away} ({publisher.acknowledged:,} of {publisher.sent:,} messages were acknowledged; "
            "publishing the file again counts none of them twice)"
        ) from away
    return replay.published


def _now_ms() -> int:
    return int(time.time() * 1000)


class _Shown:
    """Events on their way, with a progress bar."""

    def __init__(self, intake: Intake, bar: Progress, task: TaskID) -> None:
        self._intake, self._bar, self._task = intake, bar, task
        self.example = b""

    def __iter__(self) -> Iterator[Event]:
        for number, event in enumerate(self._intake):
            self.example = self.example or event.raw
            if number % _REPORT_EVERY == 0:
                self._update()
            yield event
        self._update()

    def _update(self) -> None:
        rows, share = self._intake.account.rows, self._intake.progress()
        # A CSV file does not say how many rows it has; its bytes do, about.
        total = self._intake.total_rows or (int(rows / share) if share and rows else None)
        self._bar.update(self._task, completed=rows, total=total)


def _print(summary: dict[str, Any], refused: list[str], example: bytes) -> None:
    table = Table(show_header=False)
    names = {
        "rows": "rows",
        "accepted": "would be published" if summary["dry_run"] else "",
        "published": "" if summary["dry_run"] else "published",
        "labels_published": "labels published" if summary["labels_published"] else "",
        "accounts_closed_published": "of them accounts closed"
        if summary["accounts_closed_published"]
        else "",
        "labels_refused": "labels left out: a time that no message can have"
        if summary["labels_refused"]
        else "",
        "labels_not_yet": "labels left out: nobody knows them yet" if summary["labels_not_yet"] else "",
        "skipped": "skipped on purpose",
        "outside": "outside --from, --to",
        "refused": "refused",
        "rows_per_second": "rows/s",
    }
    for key, name in names.items():
        if name:
            table.add_row(name, f"{summary[key]:,}")
    table.add_row("seconds", f"{summary['seconds']:.1f}")
    out.print(table)
    if summary["dry_run"] and example:
        out.print(f"first message: {escape(example.decode())}", highlight=False, soft_wrap=True)
    if not refused:
        return
    out.print("refused rows, by reason:")
    for reason, count in list(summary["reasons"].items())[: len(refused)]:
        out.print(f"  {count:,} x {escape(reason)}", highlight=False, soft_wrap=True)
    out.print("the first of them:")
    for line in refused:
        out.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
