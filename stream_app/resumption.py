"""Where a topic goes on, and which part of a chunk is what comes next there."""

from collections.abc import Awaitable, Callable

from features.ports import Lease, StoreRolledBack
from schemas.errors import HistoryError
from schemas.topics import TRANSACTIONS
from stream_app.partition import Partition
from stream_app.ports import LogRange
from stream_app.transport import Chunk

# Of a chunk, as far as settings go: what one worker publishes before it commits.
_MOST_RECORDS = 5000


def next_offset(lease: Lease, topic: str, partition: int, log: LogRange) -> int:
    """Where a topic goes on.

    Raises:
        HistoryError: State and log do not fit; nothing is consumed until a person decides.
    """
    stored = lease.next_offsets.get(topic)
    if stored is None:
        # A store that went back to before a topic's first record has something of the other topics, and
        # all of this one is still to be read: that is no loss while the log has its beginning.
        went_back = bool(lease.next_offsets) and log.start == 0
        if log.committed and not went_back:
            raise HistoryError(
                f"{topic}[{partition}] was processed up to {log.committed}, but the store has nothing of it: "
                "histories were lost or another namespace is set. Restore Redis, or run 'tidegate rebuild'; "
                "a new namespace needs a new TIDEGATE_GROUP too"
            )
        return log.start
    if stored < log.start:
        raise _retention_passed(topic, partition, stored, log.start)
    if stored > log.end:
        raise made_again(topic, partition, stored)
    return stored


def under_way_until(lease: Lease, log: LogRange | None) -> int:
    """Offset behind every transaction that an earlier owner may have published and not committed."""
    stored = lease.next_offsets.get(TRANSACTIONS.name)
    return 0 if stored is None or log is None else min(log.end, stored + _MOST_RECORDS)


async def rest_of(
    partition: Partition, chunk: Chunk, seeks: int, log_start: Callable[[], Awaitable[int]]
) -> Chunk | None:
    """The part of a chunk that is next, or `None` where nothing of it is.

    Args:
        partition: Its partition, whose lock is held.
        chunk: What was fetched.
        seeks: How often the partition of the topic was sought by now.
        log_start: First offset that the log has.

    Raises:
        StoreRolledBack: Records between the store and this chunk were never delivered.
        HistoryError: They are not in the log any more, or the log is another one.
    """
    cursor = partition.next_offset(chunk.topic)
    if cursor is None:
        return None
    if chunk.after > cursor:
        if chunk.seek < seeks:
            return None
        raise StoreRolledBack(f"{chunk.topic}[{chunk.partition}] jumped from {cursor} to {chunk.after}")
    if chunk.after == cursor:
        if chunk.records[0].offset < chunk.after:
            raise made_again(chunk.topic, chunk.partition, chunk.after)
    else:
        rest = [record for record in chunk.records if record.offset >= cursor]
        if not rest:
            return None
        chunk = Chunk(chunk.topic, chunk.partition, rest, cursor, chunk.seek)
    # Compaction and transaction markers leave gaps; retention that passed us loses events.
    if (missing := chunk.missing) is not None and (start := await log_start()) > missing:
        raise _retention_passed(chunk.topic, chunk.partition, missing, start)
    return chunk


def _retention_passed(topic: str, partition: int, stored: int, start: int) -> HistoryError:
    return HistoryError(
        f"{topic}[{partition}] goes on at offset {stored}, but the log starts at {start}: events were "
        "deleted before they were processed. Restore the topic, or run 'tidegate rebuild' to build the "
        "histories from what is left"
    )


def made_again(topic: str, partition: int, stored: int) -> HistoryError:
    """The log is not the one that was processed."""
    return HistoryError(
        f"{topic}[{partition}] was processed up to offset {stored}, but the log ends before or has other "
        "records there: the topic was made again or lost its end. Restore it, or run 'tidegate rebuild' to "
        "build the histories from it"
    )
