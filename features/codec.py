"""History to bytes and back.

A stored history is a header, the newest records in the order they arrived, so that new ones are appended,
and a packed block of all earlier ones. Decoding sorts by time, keeping arrival order among equal times.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numba
import numpy as np
import numpy.typing as npt

from features.packing import unpack
from features.record import LABEL_KIND, RECORD, REPLACED_KIND, TRANSACTION_KIND, Records
from schemas.errors import HistoryError

VERSION: Final = 3
_MAGIC: Final = 0x4754  # "TG"
HEADER: Final = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("record_bytes", "u1"),
        ("packed_bytes", "<u4"),
        ("first_ms", "<i8"),
        ("count", "<i8"),
        ("debit_minor", "<i8"),
        ("credit_minor", "<i8"),
        ("churn_day", "<u2"),  # 65535: never
        ("churn_band", "i1"),
        ("spare", "u1"),
        ("last_day", "<u2"),
        ("active_days", "<u2"),
    ]
)
"""48 bytes before the records."""
_HEADER: Final = struct.Struct("<HBBIqqqqHbxHH")
_LARGEST: Final = 2**63 - 1
NEVER: Final = 0xFFFF
"""Day of a customer whose churn was never scored, as it is stored."""
Headers = npt.NDArray[np.void]
_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Totals:
    """What is known of a customer beyond the events kept.

    Attributes:
        first_ms: Time of the earliest transaction ever accepted; 0 before the first.
        count: Transactions ever accepted; one that was corrected counts once.
        debit_minor, credit_minor: Their sums, in minor units of whatever currency each had, as corrected.
        churn_day: Day (since 1970) of the last churn score; -1 before the first.
        churn_band: Of the last churn score: 0 low, 1 medium, 2 high; -1 before the first.
        last_day: Day of the newest transaction ever accepted; 0 before the first.
        active_days: Days with a transaction, each counted when it became the newest: late events add none.
    """

    first_ms: int = 0
    count: int = 0
    debit_minor: int = 0
    credit_minor: int = 0
    churn_day: int = -1
    churn_band: int = -1
    last_day: int = 0
    active_days: int = 0

    def plus(self, added: Records) -> Self:
        """Totals with more accepted transactions (not labels)."""
        totals = self
        columns = (added[name].tolist() for name in ("time_ms", "amount_minor", "credit"))
        for time_ms, amount_minor, credit in zip(*columns, strict=True):
            totals = totals.plus_one(time_ms, amount_minor, credit == 1)
        return totals

    def rescored(self, churn_day: int, churn_band: int) -> Self:
        """Totals that remember another churn score."""
        return type(self)(
            self.first_ms,
            self.count,
            self.debit_minor,
            self.credit_minor,
            churn_day,
            churn_band,
            self.last_day,
            self.active_days,
        )

    def plus_one(self, time_ms: int, amount_minor: int, credit: bool) -> Self:
        """Totals with one more accepted transaction."""
        debit_minor, credit_minor = self.debit_minor, self.credit_minor
        # Stops at the largest stored number: absurd sums must not stop the stream.
        if credit:
            credit_minor = min(credit_minor + amount_minor, _LARGEST)
        else:
            debit_minor = min(debit_minor + amount_minor, _LARGEST)
        day = time_ms // _DAY_MS
        newer = day > self.last_day
        return type(self)(
            min(self.first_ms, time_ms) if self.count else time_ms,
            self.count + 1,
            debit_minor,
            credit_minor,
            self.churn_day,
            self.churn_band,
            day if newer else self.last_day,
            self.active_days + newer,
        )

    def corrected(self, replaced: Records, first_ms: int) -> Self:
        """Totals without a transaction, which its correction is to be added to by `plus_one`.

        Args:
            replaced: What was replaced, shape `(1,)`.
            first_ms: Time of the earliest transaction but this one and its correction.
        """
        minor, credit = int(replaced["amount_minor"][0]), bool(replaced["credit"][0])
        return replace(
            self,
            first_ms=first_ms,
            count=self.count - 1,
            debit_minor=self.debit_minor - (0 if credit else minor),
            credit_minor=self.credit_minor - (minor if credit else 0),
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


def encode_header(totals: Totals, packed_bytes: int = 0) -> bytes:
    """The fixed part of a stored history.

    Args:
        totals: Lifetime totals.
        packed_bytes: Length of the packed block behind the records.
    """
    return _HEADER.pack(
        _MAGIC,
        VERSION,
        RECORD.itemsize,
        packed_bytes,
        totals.first_ms,
        totals.count,
        totals.debit_minor,
        totals.credit_minor,
        min(totals.churn_day, NEVER - 1) % (NEVER + 1),
        totals.churn_band,
        min(totals.last_day, NEVER),
        min(totals.active_days, NEVER),
    )


def read_headers(encoded: bytes) -> Headers:
    """Headers of `encode_header`, joined, as an array `(n,)` that may be changed."""
    return np.frombuffer(bytearray(encoded), dtype=HEADER)


def empty_headers(n: int) -> Headers:
    """Headers of customers never seen, `(n,)`."""
    return read_headers(encode_header(Totals()) * n)


def totals_of(header: np.void) -> Totals:
    """What a header says."""
    first_ms, count, debit, credit, churn_day, churn_band, _, *days = header.item()[4:]
    return Totals(first_ms, count, debit, credit, -1 if churn_day == NEVER else churn_day, churn_band, *days)


def encode(history: History) -> bytes:
    """A whole stored history, nothing of it packed."""
    return encode_header(history.totals) + history.records.tobytes()


def decode(stored: bytes | None) -> History:
    """A history from stored bytes; an empty one from `None`.

    Raises:
        HistoryError: The bytes are not a history of this version.
    """
    if stored is None:
        return History.empty()
    if len(stored) < HEADER.itemsize:
        raise HistoryError(f"a stored history of {len(stored)} bytes is cut off")
    magic, version, record_bytes, packed_bytes, *rest = _HEADER.unpack_from(stored)
    if magic != _MAGIC or version != VERSION or record_bytes != RECORD.itemsize:
        raise HistoryError(
            f"a stored history has format {version}, this program reads {VERSION}: "
            "run the version that wrote it, or 'tidegate rebuild'"
        )
    body = len(stored) - HEADER.itemsize - packed_bytes
    if body < 0 or body % RECORD.itemsize:
        raise HistoryError(f"a stored history of {len(stored)} bytes is cut off")
    newest = stored[HEADER.itemsize : HEADER.itemsize + body]
    if packed_bytes:
        # Byte by byte: numpy takes far longer to join or copy records of many fields.
        records = unpack(stored[len(stored) - packed_bytes :], body // RECORD.itemsize)
        records.view(np.uint8)[records.nbytes - body :] = np.frombuffer(newest, np.uint8)
    else:
        # A copy: numba compiles once more for memory that cannot be written.
        records = np.frombuffer(bytearray(newest), dtype=RECORD)
    corrected, disordered = _look_through(records)
    if corrected:
        _hide_replaced(records)
    if disordered:
        records = records[np.argsort(records["time_ms"], kind="stable")]
    first_ms, count, debit, credit, churn_day, *others = rest
    churn_day = -1 if churn_day == NEVER else churn_day
    return History(Totals(first_ms, count, debit, credit, churn_day, *others), records)


@numba.njit(cache=True)
def _look_through(records: Any) -> tuple[bool, bool]:
    """Whether there is a correction among records, and whether one is older than the one before it."""
    corrected, disordered, before = False, False, np.int64(-(2**63))
    for i in range(len(records)):
        corrected |= records[i].revision != 0
        disordered |= records[i].time_ms < before
        before = records[i].time_ms
    return corrected, disordered


def _hide_replaced(records: Records) -> None:
    """What the kernel does where a correction comes, once more: stored records are never changed.

    Args:
        records: `(n,)` in order of arrival; what is packed is in order of time, and was done before.
    """
    transactions = records["kind"] != LABEL_KIND
    for transaction in np.unique(records["transaction"][transactions & (records["revision"] > 0)]):
        versions = np.flatnonzero(transactions & (records["transaction"] == transaction))
        alive = versions[records["kind"][versions] == TRANSACTION_KIND]
        if len(alive):
            earlier = versions[versions != alive[-1]]
            records["kind"][earlier] = REPLACED_KIND
            for name in ("revision", "amount_minor", "credit"):
                records[name][earlier] = records[name][alive[-1]]


def packed_length(stored: bytes | None) -> int:
    """Length of the packed block that a stored history, or a header alone, speaks of."""
    return int(_HEADER.unpack_from(stored)[3]) if stored else 0
