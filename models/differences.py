"""What differs between what was found and what was rebuilt from a log, and how much was compared."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features import retention
from features.codec import Totals
from features.definitions import DAY_MS
from features.record import LABEL_KIND, RECORD, Records
from models.churn_scores import BANDS
from schemas.fields import to_epoch_ms
from schemas.score import ChurnScore

_SHOWN_RECORDS = 200
_TOTALS = ("first_ms", "count", "debit_minor", "credit_minor", "last_day", "active_days")


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as rebuilt.

    Attributes:
        kind: `score`, `feature`, `missing score`, `unexpected score` or `history`.
        offset: Of the transaction; `None` for a stored history.
        values: What differs by name: what was found, and what it should be.
        history: Records the rebuilt value follows from, oldest first; ids are hashes.
    """

    kind: str
    partition: int
    customer_id: str | None
    transaction_id: str | None
    offset: int | None
    values: Mapping[str, tuple[Any, Any]]
    history: Sequence[Mapping[str, Any]] = ()


@dataclass(slots=True)
class Tally:
    """What was compared and what was not."""

    transactions: int = 0
    scores: int = 0
    vectors: int = 0
    histories: int = 0
    repeats: int = 0
    differences: int = 0
    not_compared: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    first: Difference | None = None

    def differs(self, difference: Difference) -> None:
        """Count a difference and keep the first."""
        self.differences += 1
        self.first = self.first or difference


def retained(records: Records) -> Records:
    """The part of a history that features may look at; a label behind a transaction of the same time."""
    kept = retention.retained(records)
    # Where a label stands among transactions of its millisecond is no feature's business.
    in_order: Records = kept[np.lexsort((kept["kind"], kept["time_ms"]))]
    return in_order


def differing_records(found: Records, expected: Records) -> dict[str, tuple[Any, Any]]:
    """The first record that differs, field by field; empty where all are equal bit for bit.

    Labels of one time may stand in any order: it is that in which they were put in.
    """
    if found.tobytes() == expected.tobytes():
        return {}
    if len(found) == len(expected) and _in_one_order(found) == _in_one_order(expected):
        return {}
    values: dict[str, tuple[Any, Any]] = {}
    if len(found) != len(expected):
        values["records"] = (len(found), len(expected))
    for i in range(min(len(found), len(expected))):
        if found[i].tobytes() != expected[i].tobytes():
            for name in RECORD.names or ():
                if found[i][name].tobytes() != expected[i][name].tobytes():
                    values[f"record {i} {name}"] = (found[i][name].item(), expected[i][name].item())
            break
    return values or {"records": ("other bytes", "these")}


def _in_one_order(records: Records) -> tuple[bytes, list[bytes]]:
    labels = records["kind"] == LABEL_KIND
    # No field of a label but its time says when it comes.
    return records[~labels].tobytes(), sorted(record.tobytes() for record in records[labels])


def differing_totals(
    found: Totals, rebuilt: Totals, churn: bytes | None, *, log_complete: bool
) -> dict[str, tuple[Any, Any]]:
    """Lifetime totals that differ, by name.

    Args:
        found: As stored.
        rebuilt: From the log.
        churn: The newest stored churn score, of which the totals remember day and band.
        log_complete: Whether the log starts at its first record. Where it does not, what is counted over
            the whole life is not compared.
    """
    values: dict[str, tuple[Any, Any]] = {}
    if log_complete:
        for name in _TOTALS:
            pair = (getattr(found, name), getattr(rebuilt, name))
            if pair[0] != pair[1]:
                values[f"totals.{name}"] = pair
    day, band = -1, -1
    if churn is not None:
        newest = ChurnScore.model_validate_json(churn)
        day, band = to_epoch_ms(newest.as_of) // DAY_MS, BANDS.index(newest.band)
    if found.churn_day != day:
        values["totals.churn_day"] = (found.churn_day, day)
    if found.churn_band != band:
        values["totals.churn_band"] = (found.churn_band, band)
    return values


def shown_records(records: Records) -> list[dict[str, Any]]:
    """The newest records as numbers and hashes, as they are stored."""
    names = RECORD.names or ()
    return [
        {name: or_none(value) for name, value in zip(names, record.tolist(), strict=True)}
        for record in records[-_SHOWN_RECORDS:]
    ]


def or_none(value: Any) -> Any:
    """The value; `None` for NaN, which is unknown."""
    return None if value != value else value
