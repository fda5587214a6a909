"""History to bytes and back.

A stored history is a header and records in the order they arrived, so that new ones are appended.
Decoding sorts by time, keeping arrival order among equal times.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from features.record import RECORD, Records
from schemas.errors import HistoryError

VERSION: Final = 1
_MAGIC: Final = 0x4754  # "TG"
HEADER: Final = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("record_bytes", "u1"),
        ("spare", "<u4"),
        ("first_ms", "<i8"),
        ("count", "<i8"),
        ("debit_minor", "<i8"),
        ("credit_minor", "<i8"),
        ("churn_day", "<i4"),
        ("churn_band", "<i4"),
    ]
)
"""48 bytes before the records."""
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known of a customer beyond the events kept.

    Attributes:
        first_ms: Time of the earliest transaction ever accepted; 0 before the first.
        count: Transactions ever accepted.
        debit_minor, credit_minor: Their sums, in minor units of whatever currency each had.
        churn_day: Day (since 1970) of the last churn score; -1 before the first.
        churn_band: Of the last churn score: 0 low, 1 medium, 2 high; -1 before the first.
    """

    first_ms: int = 0
    count: int = 0
    debit_minor: int = 0
    credit_minor: int = 0
    churn_day: int = -1
    churn_band: int = -1

    def plus(self, added: Records) -> Self:
        """Totals with more accepted transactions (not labels)."""
        if len(added) == 0:
            return self
        credit = added["credit"] == 1
        first = int(added["time_ms"].min())
        return replace(
            self,
            first_ms=min(self.first_ms, first) if self.count else first,
            count=self.count + len(added),
            # Stops at the largest stored number: absurd sums must not stop the stream.
            debit_minor=min(self.debit_minor + sum(added["amount_minor"][~credit].tolist()), _LARGEST),
            credit_minor=min(self.credit_minor + sum(added["amount_minor"][credit].tolist()), _LARGEST),
        )


@dataclass(frozen=True, slots=True)
class History:
    """A customer's state.

    Attributes:
        totals: Lifetime totals.
        records: `(n,)` in time order, arrival order among equal times.
    """

    totals: Totals
    records: Records

    @classmethod
    def empty(cls) -> Self:
        """History of a customer never seen."""
        return cls(Totals(), np.zeros(0, dtype=RECORD))


def encode_header(totals: Totals) -> bytes:
    """The fixed part of a stored history."""
    header = np.zeros(1, dtype=HEADER)
    header["magic"], header["version"], header["record_bytes"] = _MAGIC, VERSION, RECORD.itemsize
    for name in ("first_ms", "count", "debit_minor", "credit_minor", "churn_day", "churn_band"):
        header[name] = getattr(totals, name)
    return header.tobytes()


def encode(history: History) -> bytes:
    """A whole stored history."""
    return encode_header(history.totals) + history.records.tobytes()


def decode(stored: bytes | None) -> History:
    """A history from stored bytes; an empty one from `None`.

    Raises:
        HistoryError: The bytes are not a history of this version.
    """
    if stored is None:
        return History.empty()
    body = len(stored) - HEADER.itemsize
    if body < 0 or body % RECORD.itemsize:
        raise HistoryError(f"a stored history of {len(stored)} bytes is cut off")
    header = np.frombuffer(stored, dtype=HEADER, count=1)[0]
    if header["magic"] != _MAGIC or header["version"] != VERSION or header["record_bytes"] != RECORD.itemsize:
        raise HistoryError(
            f"a stored history has format {int(header['version'])}, this program reads {VERSION}: "
            "run the version that wrote it, or 'tidegate rebuild'"
        )
    # A copy: numba compiles once more for memory that cannot be written.
    records = np.frombuffer(stored, dtype=RECORD, offset=HEADER.itemsize).copy()
    times = records["time_ms"]
    if len(times) > 1 and (times[1:] < times[:-1]).any():
        records = records[np.argsort(times, kind="stable")]
    names = ("first_ms", "count", "debit_minor", "credit_minor", "churn_day", "churn_band")
    return History(Totals(**{name: int(header[name]) for name in names}), records)
