"""One event in a history, and what is known of a customer besides: fixed-width records."""

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from features.codes import (
    CHANNELS,
    TRANSACTION_TYPES,
    category_code,
    letters_code,
    name_hash,
    transaction_hash,
)
from schemas.label import Label
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

RECORD: Final = np.dtype(
    [
        ("time_ms", "<i8"),
        ("transaction", "<u8"),
        ("amount_minor", "<i8"),
        ("merchant", "<u4"),
        ("device", "<u4"),
        ("counterparty", "<u4"),
        ("latitude", "<f4"),  # NaN where unknown; 32 bits keep about 1 m
        ("longitude", "<f4"),
        ("country", "<u2"),
        ("currency", "<u2"),
        ("category", "u1"),
        ("transaction_type", "u1"),
        ("channel", "u1"),
        ("credit", "u1"),  # 0 debit, 1 credit
        ("card_present", "u1"),  # 0 unknown, 1 no, 2 yes
        ("kind", "u1"),  # 0 transaction, 1 label, 2 transaction that a correction replaced
        ("label", "u1"),  # of a label: 1 fraud, 2 genuine, 3 account closed
        ("revision", "u1"),  # of a transaction: 0 as first sent, larger for corrections
    ]
)
"""56 bytes. A change of this layout is a new `codec.VERSION`."""

_ROW: Final = struct.Struct("<qQqIIIffHHBBBBBBBB")

TRANSACTION_KIND: Final = 0
LABEL_KIND: Final = 1
REPLACED_KIND: Final = 2
"""No feature sees it. It stays until it is older than what is kept: so that what was kept never depends on a
correction, and as the note of its newest version, whose revision, amount and sign it has."""
LABEL_CODES: Final = {"fraud": 1, "genuine": 2, "account_closed": 3}

_CHANNEL_CODE: dict[str | None, int] = {
    None: 0,
    **{name: code for code, name in enumerate(CHANNELS, start=1)},
}
_TYPE_CODE: dict[str | None, int] = {
    None: 0,
    **{name: code for code, name in enumerate(TRANSACTION_TYPES, start=1)},
}
_PRESENT_CODE = {None: 0, False: 1, True: 2}
_NAN = float("nan")

Records = npt.NDArray[np.void]
"""Structured array of `RECORD`, shape `(n,)`."""


def to_records(
    transactions: Sequence[Transaction | WireTransaction], amounts_minor: Sequence[int]
) -> Records:
    """Records of transactions, in their order.

    Args:
        transactions: Validated messages.
        amounts_minor: Their amounts in minor units, computed once while validating.
    """
    pack = _ROW.pack
    rows = [
        pack(
            t.event_time_ms,
            transaction_hash(t.transaction_id),
            minor,
            name_hash(t.merchant_id),
            name_hash(t.device_id),
            name_hash(t.counterparty_id),
            _NAN if t.latitude is None or t.longitude is None else t.latitude,
            _NAN if t.latitude is None or t.longitude is None else t.longitude,
            letters_code(t.merchant_country),
            letters_code(t.currency),
            category_code(t.merchant_category, t.transaction_type),
            _TYPE_CODE[t.transaction_type],
            _CHANNEL_CODE[t.channel],
            t.is_credit,
            _PRESENT_CODE[t.card_present],
            TRANSACTION_KIND,
            0,
            t.revision,
        )
        for t, minor in zip(transactions, amounts_minor, strict=True)
    ]
    # From a bytearray: numba compiles once more for memory that cannot be written.
    return np.frombuffer(bytearray().join(rows), dtype=RECORD)


def accepted(history: Records, transaction: int) -> Records:
    """A copy of a transaction's record as features see it, `(1,)`; `(0,)` where a history has none.

    Args:
        history: `(n,)` records.
        transaction: Hash of its id.
    """
    found = np.flatnonzero((history["transaction"] == transaction) & (history["kind"] == TRANSACTION_KIND))
    record: Records = history[found[:1]].copy()
    return record


def before_event(history: Records, event: Records) -> Records:
    """A history as it was before an event that may be in it, with the earlier versions of a correction.

    Args:
        history: `(n,)` records; stays as it is.
        event: `(1,)`.
    """
    versions = (history["transaction"] == event["transaction"][0]) & (history["kind"] != LABEL_KIND)
    revision = int(event["revision"][0])
    if not versions.any() or history["revision"][versions].max() < revision:
        return history
    if revision == 0:
        kept: Records = history[~versions]
        return kept
    kept = history[~versions | (history["kind"] == REPLACED_KIND)]
    kept["revision"][(kept["transaction"] == event["transaction"][0]) & (kept["kind"] == REPLACED_KIND)] = (
        revision - 1
    )
    return kept


def label_record(label: Label) -> Records:
    """A label as a record at the time it became known, shape `(1,)`."""
    record = np.zeros(1, dtype=RECORD)
    record["time_ms"] = label.label_time_ms
    if label.transaction_id is not None:
        record["transaction"] = transaction_hash(label.transaction_id)
    record["latitude"] = record["longitude"] = _NAN
    record["kind"] = LABEL_KIND
    record["label"] = LABEL_CODES[label.label]
    return record
