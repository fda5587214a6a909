"""A file's rows as arrays, read and validated in processes of their own.

Validating costs more than computing. Of a large file each process takes every so many-th batch; here they
are put in order again. The rows take the same way as those of `publish`: mapping, message, validation,
record.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from features.attributes import AttributeFeature, attribute_values
from features.record import to_records
from infra.intake import Account, Intake, PlainEvent, RefusedRow
from infra.mapping import Mapping
from models.vectors import Rows, label_code
from schemas.errors import ConfigError, TidegateError
from schemas.fields import LATEST, to_epoch_ms

_MOST_READERS = 4
_SMALL_BYTES = 4_000_000
"""Of a smaller file: one process. Starting another takes as long as reading that."""
_LATEST_MS = to_epoch_ms(LATEST)


class ReaderLost(TidegateError):
    """The reading process ended before the file did."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be read.

    Attributes:
        labels: Whether the mapping's labels are wanted.
        now_ms: Refuse events more than a day after it, as the worker would.
        limit: Stop after this many transactions.
        every_refused: Send every refused row, not only the first ones.
        attributes: Of which the values are wanted.
    """

    path: Path
    mapping: Mapping
    now_ms: int
    labels: bool = True
    limit: int | None = None
    every_refused: bool = False
    attributes: tuple[AttributeFeature, ...] = ()


@dataclass(slots=True)
class _Part:
    """What one message between the processes holds: a batch, or no rows at the end."""

    rows: Rows | None = None
    refused: list[RefusedRow] = field(default_factory=list)
    account: Account | None = None
    progress: float = 0.0
    error: str | None = None


def to_rows(events: list[PlainEvent], *, labels: bool, attributes: Sequence[AttributeFeature] = ()) -> Rows:
    """Good rows as the engine takes them."""
    transactions = [event.transaction for event in events]
    codes = np.zeros(len(events), dtype=np.int8)
    times = np.zeros(len(events), dtype=np.int64)
    closed_ms: dict[str, int] = {}
    for i, event in enumerate(events):
        # Later than the contract takes: `publish` leaves such a label out.
        if labels and event.label is not None and event.label.time_ms < _LATEST_MS:
            codes[i], times[i] = label_code(event.label.value), event.label.time_ms
        if event.closed_ms is not None:
            customer_id = event.transaction.customer_id
            closed_ms[customer_id] = min(event.closed_ms, closed_ms.get(customer_id, event.closed_ms))
    return Rows(
        [transaction.transaction_id for transaction in transactions],
        [transaction.customer_id for transaction in transactions],
        to_records(transactions, [event.amount_minor for event in events]),
        codes,
        times,
        attribute_values(attributes, transactions),
        closed_ms,
    )


def _parts(job: Job, every: tuple[int, int]) -> Iterator[_Part]:
    refused: list[RefusedRow] = []
    keep = refused.append if job.every_refused else lambda row: None
    intake = Intake(job.path, job.mapping, now_ms=job.now_ms, limit=job.limit, on_refused=keep, every=every)
    with intake:
        for events in intake.plain():
            rows = to_rows(events, labels=job.labels, attributes=job.attributes)
            yield _Part(rows, [*refused], intake.account, intake.progress())
            refused.clear()
        yield _Part(None, [*refused], intake.account, 1.0)


def _read(job: Job, every: tuple[int, int], pipe: Connection) -> None:
    """A reading process."""
    # A batch makes tens of thousands of objects and drops them: a quarter of the time went there.
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        for part in _parts(job, every):
            pipe.send(part)
    except BrokenPipeError:
        # Whoever asked is gone.
        return
    except TidegateError as error:
        pipe.send(_Part(error=str(error)))
    finally:
        pipe.close()


class RowBatches:
    """Batches of a file's rows, read ahead by other processes. A context manager; iterate once.

    Args:
        job: What is to be read.
        on_refused: Called with every refused row, where the job asks for every one.
        readers: Processes; by default as many as there are cores, where the file is large enough.

    Attributes:
        account: What became of the rows read so far.
        progress: Share of the file that has been read, 0 to 1.
    """

    def __init__(
        self,
        job: Job,
        on_refused: Callable[[RefusedRow], None] = lambda row: None,
        *,
        readers: int | None = None,
    ) -> None:
        self._job = job
        self._on_refused = on_refused
        self._readers = readers
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        self.account = Account()
        self.progress = 0.0

    def __enter__(self) -> Self:
        # File and mapping are checked against each other here, before a process is started.
        with Intake(self._job.path, self._job.mapping):
            pass
        # Not a fork: this process may have threads of Arrow.
        context = multiprocessing.get_context("spawn")
        # A mapping that was used keeps functions, which cannot be sent.
        rules = self._job.mapping.model_copy()
        rules.__dict__.pop("_mapper", None)
        job = replace(self._job, mapping=rules)
        readers = self._readers or _readers(job)
        for number in range(readers):
            pipe, far = context.Pipe(duplex=False)
            process = context.Process(
                target=_read, args=(job, (number, readers), far), daemon=True, name=f"tidegate-rows-{number}"
            )
            process.start()
            far.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()

    def __iter__(self) -> Iterator[Rows]:
        """The batches, in the file's order.

        Raises:
            ConfigError: The file is damaged from some row on.
            ReaderLost: A reading process was killed.
        """
        if not self._pipes:
            raise ValueError("enter the context first")
        accounts = [Account() for _ in self._pipes]
        ended: set[int] = set()
        for number, pipe in cycle(enumerate(self._pipes)):
            if number in ended:
                if len(ended) == len(self._pipes):
                    return
                continue
            try:
                part: _Part = pipe.recv()
            except EOFError:
                raise ReaderLost(
                    "the process that reads the file ended early (out of memory?): nothing was written; "
                    "run the command again"
                ) from None
            if part.error is not None:
                raise ConfigError(part.error)
            for row in part.refused:
                self._on_refused(row)
            accounts[number] = part.account or accounts[number]
            self.account, self.progress = Account.together(accounts), part.progress
            if part.rows is None:
                ended.add(number)
            elif len(part.rows):
                yield part.rows


def _readers(job: Job) -> int:
    # The first so many rows are not known before those ahead of them are.
    if job.limit is not None or job.path.stat().st_size < _SMALL_BYTES:
        return 1
    return min(_MOST_READERS, os.cpu_count() or 1)
