"""What the sink has done: files of the event log, customers and offsets change in one SQL transaction."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import sqlalchemy as sa

from infra.database import (
    CUSTOMERS,
    ERASED_CUSTOMERS,
    EVENT_FILES,
    SINK_META,
    SINK_OFFSETS,
    Database,
)
from infra.event_files import EventFile
from infra.sink_commit import SinkCommit, TopicPartition, record_name
from schemas.erasure import erased_name
from schemas.errors import DependencyError, HistoryError

_CHURN = ("churn_probability", "churn_band", "churn_as_of_ms", "value_at_risk")
_PROFILE = ("country", "segment", "opened_on", "profile_ms")
# When files with rows of erased customers were retired: so long ago that they are removed next.
_AT_ONCE = 1
_COMMIT, _NEWEST = "commit", "newest "
_FILE_FIELDS = tuple(EventFile.__dataclass_fields__)


class SinkFenced(DependencyError):
    """Somebody else has moved the offsets: this sink's rows are already there."""


@dataclass(frozen=True, slots=True)
class LogOf:
    """Which log an event log was written from.

    Attributes:
        cluster: Kafka's id; `None` before the first start.
        partitions: Of its topics; `None` where nobody has said yet.
    """

    cluster: str | None = None
    partitions: str | None = None

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """From rows of the table of such things."""
        meta = {name: value for name, value in rows}
        return cls(meta.get("cluster"), meta.get("partitions"))

    def misfit(self, cluster: str, partitions: int | None) -> tuple[str, str] | None:
        """Why the event log cannot go on with a log, and what to do; `None` where it can.

        Args:
            cluster: Kafka's id.
            partitions: Of the topics; `None`: it does not matter how many.
        """
        if self.cluster not in (None, cluster):
            return (
                f"the event log was written from Kafka cluster {self.cluster}, this is {cluster}",
                "connect to the other one, or use another TIDEGATE_DATABASE_URL and TIDEGATE_EVENTS",
            )
        if partitions is not None and self.partitions not in (None, str(partitions)):
            return (
                f"the event log was written from {self.partitions} partitions, the topics now have "
                f"{partitions}",
                "what customers did who moved is scored once more and would count twice; put folder and "
                "database aside and start with empty ones",
            )
        return None


class SinkStore:
    """The sink's side of the database.

    Args:
        database: Migrated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, cluster_id: str, partitions: int) -> None:
        """Record which log the event log is of, or check it.

        Raises:
            HistoryError: It is of another log, where offsets mean other events, or of other partitions:
                what customers did who belong elsewhere now is scored there once more.
        """
        with self._database.begin() as connection:
            if connection.execute(sa.select(SINK_OFFSETS.c.topic).limit(1)).first() is None:
                # Nothing was written: other partitions mean nothing yet.
                connection.execute(sa.delete(SINK_META).where(SINK_META.c.name == "partitions"))
            rows = [
                {"name": "cluster", "value": cluster_id},
                {"name": "partitions", "value": str(partitions)},
            ]
            connection.execute(self._database.insert(SINK_META).values(rows).on_conflict_do_nothing())
            stored = connection.execute(sa.select(SINK_META.c.name, SINK_META.c.value))
            of = LogOf.of(stored)
        if (why := of.misfit(cluster_id, partitions)) is not None:
            raise HistoryError(": ".join(why))

    def log_of(self) -> LogOf:
        """Which log the event log was written from."""
        with self._database.begin() as connection:
            return LogOf.of(connection.execute(sa.select(SINK_META.c.name, SINK_META.c.value)))

    def mark(self) -> str | None:
        """The id of the folder of events, as `infra.event_mark` has it; `None` where it has none yet."""
        with self._database.begin() as connection:
            stored = connection.execute(sa.select(SINK_META.c.value).where(SINK_META.c.name == "folder"))
            return stored.scalar_one_or_none()

    def set_mark(self, mark: str) -> None:
        """Keep the id of the folder of events."""
        with self._database.begin() as connection:
            connection.execute(sa.insert(SINK_META).values(name="folder", value=mark))

    def offsets(self) -> dict[TopicPartition, int]:
        """Next offset of each partition that was ever read."""
        with self._database.begin() as connection:
            found = connection.execute(sa.select(SINK_OFFSETS)).all()
        return {(row.topic, row.partition): row.next_offset for row in found}

    def commit(self, commit: SinkCommit) -> None:
        """Apply a commit, all or nothing. Doing it again changes nothing.

        Raises:
            DependencyError: The database did not answer: whether it was applied is not known.
            SinkFenced: Another sink wrote the same part of the log.
        """
        with self._database.begin() as connection:
            if self._moved(connection, commit):
                return
            if commit.new_files:
                connection.execute(sa.insert(EVENT_FILES), [asdict(file) for file in commit.new_files])
            if commit.erased:
                self._erase(connection, commit)
            self._upsert(connection, commit.activity, _with_activity)
            self._upsert(connection, commit.churn, _with_churn)
            self._upsert(connection, commit.profiles, _with_profile)
            self._drop_empty(connection, [*commit.erased, *commit.doubtful])
            self._remember(connection, commit)

    def _remember(self, connection: sa.Connection, commit: SinkCommit) -> None:
        """Keep which commit it was, and which records are the newest that were taken.

        A repeat is known by the one, a topic that was made again by the others.
        """
        insert = self._database.insert(SINK_META)
        statement = insert.on_conflict_do_update(
            index_elements=[SINK_META.c.name], set_={"value": insert.excluded.value}
        )
        rows = [
            {"name": f"{_NEWEST}{topic} {partition}", "value": f"{offset} {record_name(transaction_id)}"}
            for (topic, partition), (offset, transaction_id) in sorted(commit.newest.items())
        ]
        connection.execute(statement, [{"name": _COMMIT, "value": commit.name}, *rows])

    def newest(self) -> dict[TopicPartition, tuple[int, str]]:
        """Offset and `record_name` of the newest record that was taken of each partition."""
        statement = sa.select(SINK_META).where(SINK_META.c.name.startswith(_NEWEST))
        found: dict[TopicPartition, tuple[int, str]] = {}
        with self._database.begin() as connection:
            for row in connection.execute(statement):
                (topic, partition), (offset, name) = row.name.split()[1:], row.value.split()
                found[topic, int(partition)] = (int(offset), name)
        return found

    def erased(self) -> dict[str, int]:
        """Digests of erased customers, and until when (ms) nothing of them is taken."""
        with self._database.begin() as connection:
            return {row.name: row.until_ms for row in connection.execute(sa.select(ERASED_CUSTOMERS))}

    def _erase(self, connection: sa.Connection, commit: SinkCommit) -> None:
        """Remember who is erased, delete their rows, and let go of the files that held their events."""
        insert = self._database.insert(ERASED_CUSTOMERS)
        statement = insert.on_conflict_do_update(
            index_elements=[ERASED_CUSTOMERS.c.name], set_={"until_ms": insert.excluded.until_ms}
        )
        names = {erased_name(c): until_ms for c, until_ms in commit.erased.items()}
        connection.execute(statement, [{"name": n, "until_ms": names[n]} for n in sorted(names)])
        c = CUSTOMERS.c
        for customer_id in sorted(c for c in commit.erased if "\0" not in c):
            until_ms = commit.erased[customer_id]
            mine = c.customer_id == customer_id
            row = connection.execute(sa.select(CUSTOMERS).where(mine)).mappings().first()
            connection.execute(sa.delete(CUSTOMERS).where(mine))
            if row is None:
                continue
            # What came after the request is of a new customer.
            kept = [*(_CHURN if row["churn_as_of_ms"] > until_ms else ())]
            kept += _PROFILE if row["profile_ms"] > until_ms else ()
            new = {"customer_id": customer_id, **{name: row[name] for name in kept}}
            if kept:
                connection.execute(sa.insert(CUSTOMERS).values(new))
        old = [file.path for file in commit.replaced]
        if old:
            retire = sa.update(EVENT_FILES).where(EVENT_FILES.c.path.in_(old), EVENT_FILES.c.retired_ms == 0)
            if connection.execute(retire.values(retired_ms=_AT_ONCE)).rowcount != len(old):
                raise SinkFenced("another sink merges files of the same database: run one for each database")
        # Also what was merged a while ago still has the rows: these files end sooner than others.
        retired = EVENT_FILES.c.retired_ms > 0
        connection.execute(sa.update(EVENT_FILES).where(retired).values(retired_ms=_AT_ONCE))

    def _drop_empty(self, connection: sa.Connection, customer_ids: Sequence[str]) -> None:
        """Delete erased customers of whom there is no transaction and no profile.

        A churn score was under way when they were erased, or their profile was taken back afterwards.
        """
        if customer_ids:
            c = CUSTOMERS.c
            nothing = [c.transactions == 0, c.country == "", c.segment == "", c.opened_on == ""]
            ids = [i for i in customer_ids if "\0" not in i]
            connection.execute(sa.delete(CUSTOMERS).where(c.customer_id.in_(ids), *nothing))

    def _moved(self, connection: sa.Connection, commit: SinkCommit) -> bool:
        """Move the offsets; whether they had been moved by this very commit."""
        mismatched = False
        offsets = SINK_OFFSETS.c
        for (topic, partition), reached in sorted(commit.reached.items()):
            expected = commit.expected.get((topic, partition))
            if expected is None:
                row = {"topic": topic, "partition": partition, "next_offset": reached}
                insert = self._database.insert(SINK_OFFSETS).values(row).on_conflict_do_nothing()
                # Not by its row count, which PostgreSQL's driver does not tell here.
                made = connection.execute(insert.returning(offsets.partition)).first()
                mismatched |= made is None
            else:
                update = (
                    sa.update(SINK_OFFSETS)
                    .where(
                        offsets.topic == topic,
                        offsets.partition == partition,
                        offsets.next_offset == expected,
                    )
                    .values(next_offset=reached)
                )
                mismatched |= connection.execute(update).rowcount != 1
        if not mismatched:
            return False
        # Not before: an earlier try may have been under way until now, and had the offsets locked.
        last = connection.execute(sa.select(SINK_META.c.value).where(SINK_META.c.name == _COMMIT))
        if last.scalar_one_or_none() == commit.name:
            # The answer to an earlier try was lost.
            connection.rollback()
            return True
        raise SinkFenced("another sink writes to the same database: run one for each database")

    def _upsert(
        self,
        connection: sa.Connection,
        rows: Mapping[str, Mapping[str, Any]],
        changes: Callable[[Any], dict[str, Any]],
    ) -> None:
        # PostgreSQL has no NUL character in texts: such a customer is in the event log alone.
        ids = sorted(c for c in rows if "\0" not in c)
        if not ids:
            return
        insert = self._database.insert(CUSTOMERS)
        statement = insert.on_conflict_do_update(
            index_elements=[CUSTOMERS.c.customer_id], set_=changes(insert.excluded)
        )
        # In one order: two transactions that lock the same rows do not wait for each other for ever.
        connection.execute(statement, [{"customer_id": c, **rows[c]} for c in ids])

    def files(self, days: Iterable[int] | None = None) -> list[EventFile]:
        """Files that count, oldest day first."""
        statement = sa.select(*(EVENT_FILES.c[name] for name in _FILE_FIELDS))
        statement = statement.where(EVENT_FILES.c.retired_ms == 0)
        if days is not None:
            statement = statement.where(EVENT_FILES.c.day.in_(list(days)))
        with self._database.begin() as connection:
            found = connection.execute(statement.order_by(EVENT_FILES.c.day, EVENT_FILES.c.path)).all()
        return [EventFile(*row) for row in found]

    def replace(self, old: Sequence[EventFile], new: EventFile) -> bool:
        """Let one file take the rows of several; false where one of them does not count any more."""
        paths = [file.path for file in old]
        retire = sa.update(EVENT_FILES).where(EVENT_FILES.c.path.in_(paths), EVENT_FILES.c.retired_ms == 0)
        with self._database.begin() as connection:
            done = connection.execute(retire.values(retired_ms=time.time_ns() // 1_000_000))
            if done.rowcount != len(old):
                connection.rollback()
                return False
            connection.execute(sa.insert(EVENT_FILES).values(asdict(new)))
        return True

    def retired(self, before_ms: int) -> list[str]:
        """Files that were retired before a moment and are still named."""
        statement = sa.select(EVENT_FILES.c.path).where(
            EVENT_FILES.c.retired_ms > 0, EVENT_FILES.c.retired_ms < before_ms
        )
        with self._database.begin() as connection:
            return [row.path for row in connection.execute(statement)]

    def named(self) -> set[str]:
        """All files that the manifest knows, retired ones too."""
        with self._database.begin() as connection:
            return {row.path for row in connection.execute(sa.select(EVENT_FILES.c.path))}

    def forget(self, paths: Sequence[str]) -> None:
        """Forget files that were removed."""
        if paths:
            with self._database.begin() as connection:
                connection.execute(sa.delete(EVENT_FILES).where(EVENT_FILES.c.path.in_(paths)))


def _with_activity(new: Any) -> dict[str, Any]:
    c = CUSTOMERS.c
    newest = new.last_event_ms >= c.last_event_ms
    earlier = sa.or_(c.first_event_ms == 0, new.first_event_ms < c.first_event_ms)
    return {
        "first_event_ms": sa.case((earlier, new.first_event_ms), else_=c.first_event_ms),
        "last_event_ms": sa.case((newest, new.last_event_ms), else_=c.last_event_ms),
        "last_score": sa.case((newest, new.last_score), else_=c.last_score),
        "last_decision": sa.case((newest, new.last_decision), else_=c.last_decision),
        **{name: c[name] + new[name] for name in ("transactions", "flagged", "blocked")},
    }


def _with_churn(new: Any) -> dict[str, Any]:
    c = CUSTOMERS.c
    newer = new.churn_as_of_ms >= c.churn_as_of_ms
    return {name: sa.case((newer, new[name]), else_=c[name]) for name in _CHURN}


def _with_profile(new: Any) -> dict[str, Any]:
    return {name: new[name] for name in _PROFILE}
