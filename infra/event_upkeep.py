"""Upkeep of the event log: small files become large ones, and what no reader has open any more goes."""

import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate

from infra.database import Database
from infra.event_files import EventFile, EventFiles
from infra.sink_store import SinkStore

_STRAY_S = 3600.0
# Files of one merge at most: a thousand small ones would take long, whatever they hold.
_AT_ONCE = 128


class EventUpkeep:
    """Merges and removes files of an event log that one sink writes.

    Args:
        many: So many files of one size and day become one.
        file_rows: A file of so many rows is left as it is, and no merge makes a larger one.
        budget_s: How long one run goes on merging; the last merge may take longer.
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
        budget_s: float,
        retired_s: float,
        merged: Callable[[int], None],
        crash: Callable[[str], None],
    ) -> None:
        self._database, self._store, self._files = database, SinkStore(database), files
        self._many, self._file_rows, self._budget_s = many, file_rows, budget_s
        self._retired_s = retired_s
        self._merged, self._crash = merged, crash
        self.unscrubbed = False
        self._unsaid: tuple[list[EventFile], EventFile] | None = None

    def run(self, idle: bool) -> None:
        """Merge small files as long as there is time, and remove what no reader has open any more.

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
        # Late events make a file for each of many days with every flush: one merge a flush does not keep up.
        until = time.monotonic() + self._budget_s
        while due := self._due(idle):
            for parts in due:
                merged = self._files.merge(parts)
                self._crash("after-merge")
                if not self._replace(parts, merged) or time.monotonic() >= until:
                    return

    def _due(self, idle: bool) -> list[list[EventFile]]:
        """Files that are to become one, the day with the most small files first."""
        small: dict[tuple[int, int], list[EventFile]] = {}
        for file in self._store.files():
            if file.rows < self._file_rows:
                # Of one size, so that a row is rewritten a few times and not with every flush; all of a day
                # when there is nothing else to do.
                size = 0 if idle else int(math.log(file.rows, self._many))
                small.setdefault((file.day, size), []).append(file)
        of_day = Counter(day for (day, _), found in small.items() for _ in found)
        due = []
        for key in sorted(small, key=lambda key: (-of_day[key[0]], key)):
            found = sorted(small[key], key=lambda file: file.rows)
            # A merge has all its rows in memory.
            sums = accumulate(file.rows for file in found)
            parts = [file for file, rows in zip(found, sums, strict=True) if rows <= self._file_rows]
            if len(found) >= (2 if idle else self._many) and len(parts) > 1:
                due.append(parts[:_AT_ONCE])
        return due

    def _replace(self, files: list[EventFile], merged: EventFile) -> bool:
        """Let a merged file count; false where one of its parts does not any more.

        Where the database does not say, the next try is of the same file: merging again with each try would
        fill the disk, and to remove the file would be wrong where it counts.
        """
        self._unsaid = (files, merged)
        if replaced := self._store.replace(files, merged):
            self._merged(len(files))
        elif merged.path not in self._store.named():
            self._files.discard([merged])
        self._unsaid = None
        return replaced
