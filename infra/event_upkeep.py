"""Upkeep of the event log: small files become large ones, and what no reader has open any more goes."""

import math
import time
from collections.abc import Callable

from infra.database import Database
from infra.event_files import EventFile, EventFiles
from infra.sink_store import SinkStore

_STRAY_S = 3600.0


class EventUpkeep:
    """Merges and removes files of an event log that one sink writes.

    Args:
        many: So many files of one size and day become one.
        file_rows: A file of so many rows is left as it is.
        retired_s: Merged files stay as long.
        merged: Told how many files became one.
        crash: Told where it is, for fault tests.
    """

    def __init__(
        self,
        database: Database,
        files: EventFiles,
        *,
        many: int,
        file_rows: int,
        retired_s: float,
        merged: Callable[[int], None],
        crash: Callable[[str], None],
    ) -> None:
        self._database, self._store, self._files = database, SinkStore(database), files
        self._many, self._file_rows, self._retired_s = many, file_rows, retired_s
        self._merged, self._crash = merged, crash
        self.unscrubbed = False
        self._unsaid: tuple[list[EventFile], EventFile] | None = None

    def run(self, idle: bool) -> None:
        """Merge small files, one day at a time, and remove what no reader has open any more.

        Args:
            idle: There is nothing else to do.

        Raises:
            DependencyError: Database or disk do not answer.
            HistoryError: A file is missing or damaged.
        """
        if self._unsaid is not None:
            self._replace(*self._unsaid)
        self._merge(idle)
        before_ms = time.time_ns() // 1_000_000 - int(self._retired_s * 1000)
        retired = self._store.retired(before_ms)
        self._files.remove(retired)
        self._store.forget(retired)
        self._files.remove(self._files.strays(self._store.named(), max(_STRAY_S, self._retired_s)))
        if self.unscrubbed:
            self.unscrubbed = not self._database.scrub()

    def _merge(self, idle: bool) -> None:
        # Of one size, so that a row is rewritten a few times and not with every flush; all of a day when
        # there is nothing else to do.
        small: dict[tuple[int, int], list[EventFile]] = {}
        for file in self._store.files():
            if file.rows < self._file_rows:
                size = 0 if idle else int(math.log(file.rows, self._many))
                small.setdefault((file.day, size), []).append(file)
        for files in small.values():
            if len(files) >= (2 if idle else self._many):
                merged = self._files.merge(files)
                self._crash("after-merge")
                self._replace(files, merged)
                break

    def _replace(self, files: list[EventFile], merged: EventFile) -> None:
        """Let a merged file count. Where the database does not say, the next try is of the same file.

        Merging again with each try would fill the disk, and to remove it would be wrong where it counts.
        """
        self._unsaid = (files, merged)
        if self._store.replace(files, merged):
            self._merged(len(files))
        elif merged.path not in self._store.named():
            self._files.discard([merged])
        self._unsaid = None
