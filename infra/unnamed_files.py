"""Files on the disk that the manifest is to name: they go where it certainly does not."""

from collections.abc import Iterator
from contextlib import contextmanager

from infra.event_files import EventFile, EventFiles
from infra.event_mark import DiskError
from infra.sink_store import SinkFenced
from schemas.errors import DependencyError, TidegateError


@contextmanager
def unnamed_files(files: EventFiles) -> Iterator[list[EventFile]]:
    """Whoever writes files adds them to the list, and has them named before the end.

    A failure removes them, so that a sink that is started again and again does not fill the disk. Not where
    a database went away: its answer may have been lost, and the files count.
    """
    written: list[EventFile] = []
    try:
        yield written
    except TidegateError as failed:
        if isinstance(failed, DiskError | SinkFenced) or not isinstance(failed, DependencyError):
            files.discard(written)
        raise
