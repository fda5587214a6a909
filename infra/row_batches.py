"""A file's rows as arrays, read and validated in a process of their own.

Validating costs more than computing, so the two share the work of two cores. The rows take the same way as
those of `publish`: mapping, message, validation, record.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from features.record import to_records
from infra.intake import Account, Intake, PlainEvent, RefusedRow
from infra.mapping import Mapping
from models.vectors import Rows, label_code
from schemas.errors import ConfigError, TidegateError
from schemas.fields import LATEST, to_epoch_ms

_BATCH = 2000
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
    """

    path: Path
    mapping: Mapping
    now_ms: int
    labels: bool = True
    limit: int | None = None
    every_refused: bool = False


@dataclass(slots=True)
class _Part:
    """What one message between the processes holds."""

    rows: Rows | None = None
    refused: list[RefusedRow] = field(default_factory=list)
    account: Account | None = None
    progress: float = 0.0
    error: str | None = None


def to_rows(events: list[PlainEvent], *, labels: bool) -> Rows:
    """Good rows as the engine takes them."""
    transactions = [event.transaction for event in events]
    codes = np.zeros(len(events), dtype=np.int8)
    times = np.zeros(len(events), dtype=np.int64)
    for i, event in enumerate(events):
        # Later than the contract takes: `publish` leaves such a label out.
        if labels and event.label is not None and event.label.time_ms < _LATEST_MS:
            codes[i], times[i] = label_code(event.label.value), event.label.time_ms
    return Rows(
        [transaction.transaction_id for transaction in transactions],
        [transaction.customer_id for transaction in transactions],
        to_records(transactions, [event.amount_minor for event in events]),
        codes,
        times,
    )


def _parts(job: Job) -> Iterator[_Part]:
    refused: list[RefusedRow] = []
    keep = refused.append if job.every_refused else lambda row: None
    with Intake(job.path, job.mapping, now_ms=job.now_ms, limit=job.limit, on_refused=keep) as intake:
        stream = intake.plain()
        while events := list(islice(stream, _BATCH)):
            yield _Part(to_rows(events, labels=job.labels), [*refused], intake.account, _share(intake))
            refused.clear()
        yield _Part(None, [*refused], intake.account, 1.0)


def _share(intake: Intake) -> float:
    total = intake.total_rows
    return intake.account.rows / total if total else intake.progress()


def _read(job: Job, pipe: Connection) -> None:
    """The reading process."""
    try:
        for part in _parts(job):
            pipe.send(part)
    except BrokenPipeError:
        # Whoever asked is gone.
        return
    except TidegateError as error:
        pipe.send(_Part(error=str(error)))
    finally:
        pipe.close()


class RowBatches:
    """Batches of a file's rows, read ahead by another process. A context manager; iterate once.

    Args:
        job: What is to be read.
        on_refused: Called with every refused row, where the job asks for every one.

    Attributes:
        account: What became of the rows read so far.
        progress: Share of the file that has been read, 0 to 1.
    """

    def __init__(self, job: Job, on_refused: Callable[[RefusedRow], None] = lambda row: None) -> None:
        self._job = job
        self._on_refused = on_refused
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.account = Account()
        self.progress = 0.0

    def __enter__(self) -> Self:
        # File and mapping are checked against each other here, before a process is started.
        with Intake(self._job.path, self._job.mapping):
            pass
        # Not a fork: this process may have threads of Arrow.
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe(duplex=False)
        # A mapping that was used keeps functions, which cannot be sent.
        rules = self._job.mapping.model_copy()
        rules.__dict__.pop("_mapper", None)
        job = replace(self._job, mapping=rules)
        self._process = context.Process(target=_read, args=(job, far), daemon=True, name="tidegate-rows")
        self._process.start()
        far.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join()

    def __iter__(self) -> Iterator[Rows]:
        """The batches.

        Raises:
            ConfigError: The file is damaged from some row on.
            ReaderLost: The reading process was killed.
        """
        pipe = self._pipe
        if pipe is None:
            raise ValueError("enter the context first")
        while True:
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
            self.account = part.account or self.account
            self.progress = part.progress
            if part.rows is None:
                return
            yield part.rows
