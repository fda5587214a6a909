"""Whether event log, customer index and log of Kafka fit: what `tidegate doctor` says of the sink."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.checks import Finding, Status, error, ok
from schemas.errors import TidegateError
from schemas.topics import FRAUD_SCORES

if TYPE_CHECKING:
    from infra.sink_store import LogOf

TopicPartition = tuple[str, int]
_ADVICE = "see 'The event log and the customer index' in docs/operations.md"


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """What the database says, and the folder.

    Attributes:
        shown: The database, without login.
        log: What the event log is of.
        wrong_folder: Why the folder is not the database's; empty where it is.
        missing: Files that count and are not there.
        offsets: Next offset of each partition that was read.
    """

    shown: str
    log: "LogOf"
    files: int
    wrong_folder: str
    missing: tuple[str, ...]
    offsets: Mapping[TopicPartition, int]


def inspect_sink(database_url: str, events: Path, *, timeout_s: float) -> SinkFacts | Finding:
    """Look at database and folder; a finding where there is nothing to look at.

    Args:
        database_url: As SQLAlchemy has it.
        events: Folder of the event log.
        timeout_s: Limit of one statement.
    """
    try:
        from infra import event_mark
        from infra.database import Database
        from infra.sink_store import SinkStore
    except ImportError:
        return Finding("index", Status.SKIPPED, "needs the packages of sink or API")
    try:
        database = Database(database_url, timeout_s=timeout_s)
        try:
            if not database.ready():
                return Finding(
                    "index", Status.SKIPPED, f"no index of this version at {database.shown}: no sink ran"
                )
            store = SinkStore(database)
            files, mark, wrong = store.files(), store.mark(), ""
            try:
                if mark is not None:
                    event_mark.check(events, mark)
            except TidegateError as other:
                wrong = str(other)
            missing = tuple(file.path for file in files if not (events / file.path).exists())
            return SinkFacts(database.shown, store.log_of(), len(files), wrong, missing, store.offsets())
        finally:
            database.close()
    except TidegateError as bad:
        return error("index.connection", str(bad), "check TIDEGATE_DATABASE_URL and the database's log")


def check_sink(
    facts: SinkFacts,
    cluster: str | None,
    bounds: Mapping[TopicPartition, tuple[int, int]],
    partitions: int | None = None,
) -> Iterator[Finding]:
    """What is to be said of the sink.

    Args:
        facts: Of database and folder.
        cluster: Kafka's id; `None` where it does not answer.
        bounds: First and next offset of the partitions of scores.
        partitions: How many the topics have; `None`: not looked at.
    """
    yield ok("index.connection", facts.shown)
    if facts.wrong_folder:
        yield error("event_log.folder", facts.wrong_folder, "check TIDEGATE_EVENTS and its volume")
    elif facts.missing:
        yield error(
            "event_log.folder",
            f"{len(facts.missing)} of {facts.files} files are not there, for example {facts.missing[0]}",
            f"restore folder and database together; {_ADVICE}",
        )
    else:
        yield ok("event_log.folder", f"{facts.files} files")
    if cluster is None:
        yield Finding("event_log.offsets", Status.SKIPPED, "needs Kafka")
        return
    # Where nothing was written yet other partitions mean nothing, as the sink has it.
    if (why := facts.log.misfit(cluster, partitions if facts.offsets else None)) is not None:
        detail, advice = why
        yield error("event_log.cluster", detail, f"{advice}; {_ADVICE}")
        return
    behind = 0
    for (topic, partition), (start, end) in sorted(bounds.items()):
        stored = facts.offsets.get((topic, partition), start)
        if stored < start:
            yield error(
                "event_log.offsets",
                f"{topic} {partition} starts at offset {start}, the event log goes to {stored}",
                f"what lies between was deleted by the broker: give the topic a longer retention; {_ADVICE}",
            )
            return
        behind += max(0, end - stored)
    yield ok("event_log.offsets", f"{behind} records of {FRAUD_SCORES.name} behind")
