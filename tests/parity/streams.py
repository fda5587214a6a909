"""Streams of one customer's messages, in order of arrival, made by hypothesis."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from features.definitions import DAY_MS
from schemas.label import Label
from schemas.money import MAX_AMOUNT_MINOR, to_major
from schemas.transaction import Transaction

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

Stream = tuple[Transaction | Label, ...]


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


# Where streams begin: an ordinary day, the end of a leap day, both changes of European summer time,
# the first moment that is accepted.
_STARTS = tuple(
    map(
        _ms,
        (
            "2026-03-11T12:00:00Z",
            "2024-02-29T23:59:59.999Z",
            "2026-03-29T00:59:59Z",
            "2025-10-26T00:30:00Z",
            "1980-01-01T00:00:00Z",
        ),
    )
)
_WINDOWS_MS = (
    MINUTE_MS,
    5 * MINUTE_MS,
    HOUR_MS,
    6 * HOUR_MS,
    DAY_MS,
    7 * DAY_MS,
    30 * DAY_MS,
    90 * DAY_MS,
    120 * DAY_MS,
)

_forward = st.one_of(
    st.just(0),
    st.integers(0, 10),
    st.integers(0, MINUTE_MS),
    st.integers(0, 3 * DAY_MS),
    # At the edge of a window, and one millisecond to either side.
    st.builds(lambda window, off: window + off, st.sampled_from(_WINDOWS_MS), st.integers(-1, 1)),
    st.integers(0, 200 * DAY_MS),
)
_backward = st.one_of(
    st.integers(-DAY_MS, -1),
    st.builds(lambda window, off: -window + off, st.sampled_from(_WINDOWS_MS), st.integers(-1, 1)),
    st.integers(-150 * DAY_MS, -1),
)
# Forward gaps move the stream's clock, backward ones make one event late.
_gaps = st.one_of(_forward, _forward, _forward, _backward)

_amounts_minor = st.one_of(
    st.integers(1, 100_000), st.sampled_from([1, 1000, 1000, MAX_AMOUNT_MINOR]), st.integers(1, 10**9)
)
_places = st.one_of(
    st.sampled_from([(48.8566, 2.3522), (51.5074, -0.1278), (48.8567, 2.3522), (-33.86, 151.21), (0.0, 0.0)]),
    # Not quite around the globe: opposite points have a test of their own.
    st.tuples(st.floats(-80, 80), st.floats(-80, 80)),
)


def _optional(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *values])


_details = st.fixed_dictionaries(
    {
        "amount_minor": _amounts_minor,
        "currency": st.sampled_from(["EUR", "EUR", "EUR", "USD", "JPY", "KWD"]),
    },
    optional={
        "direction": _optional(["debit", "credit"]),
        "transaction_type": _optional(
            ["purchase", "withdrawal", "transfer", "deposit", "payment", "fee", "refund", "salary"]
        ),
        "channel": _optional(["pos", "ecommerce", "atm", "mobile", "branch", "online"]),
        "merchant_id": _optional(["", "m-1", "m-2", "m-3"]),
        "merchant_category": _optional(["5411", "5812", "3000", "7995", "9999", "6011"]),
        "merchant_country": _optional(["FR", "GB", "AU"]),
        "device_id": _optional(["d-1", "d-2"]),
        "counterparty_id": _optional(["p-1", "p-2"]),
        "card_present": _optional([True, False]),
    },
)


@dataclass(frozen=True, slots=True)
class _Step:
    gap_ms: int
    details: dict[str, Any]
    place: tuple[float, float] | None
    half_a_place: bool
    kind: str
    pick: int
    repeats: int


_steps = st.builds(
    _Step,
    gap_ms=_gaps,
    details=_details,
    place=st.one_of(st.none(), _places),
    half_a_place=st.booleans(),
    kind=st.sampled_from(["event"] * 8 + ["again", "changed", "corrected", "corrected", "label", "burst"]),
    pick=st.integers(0, 1000),
    repeats=st.integers(2, 12),
)


def transaction(number: int | str, time_ms: int, **details: Any) -> Transaction:
    """A transaction with plain values where none are given."""
    values = {"amount": "10.00", "currency": "EUR", **details}
    if "amount_minor" in values:
        values["amount"] = to_major(values.pop("amount_minor"), values["currency"])
    return Transaction(transaction_id=f"t-{number}", customer_id="c-1", event_time=time_ms, **values)


def _event(number: int, time_ms: int, step: _Step) -> Transaction:
    details = dict(step.details)
    if step.place is not None:
        details["latitude"], details["longitude"] = step.place
    elif step.half_a_place:
        details["latitude"] = 10.0
    return transaction(number, time_ms, **details)


def _label(about: Transaction, time_ms: int) -> Label:
    return Label(
        customer_id=about.customer_id,
        transaction_id=about.transaction_id,
        label="fraud",
        label_time=time_ms,
    )


def _fold(start_ms: int, steps: list[_Step]) -> Stream:
    clock = start_ms
    stream: list[Transaction | Label] = []
    events: list[Transaction] = []

    def add(step: _Step) -> None:
        nonlocal clock
        clock += max(0, step.gap_ms)
        # Late behind the clock, but never before the first accepted year.
        time_ms = max(clock + min(0, step.gap_ms), _STARTS[-1])
        if step.kind == "label" and events:
            stream.append(_label(events[step.pick % len(events)], time_ms))
        elif step.kind == "again" and events:
            stream.append(events[step.pick % len(events)])
        elif step.kind in {"changed", "corrected"} and events:
            renamed = events[step.pick % len(events)].transaction_id
            revision = step.repeats % 5 if step.kind == "corrected" else 0
            same = {"transaction_id": renamed, "revision": revision}
            # At its own time as often as at another.
            own = {"event_time": events[step.pick % len(events)].event_time} if step.pick % 2 else {}
            stream.append(_event(0, time_ms, step).model_copy(update=same | own))
        else:
            events.append(_event(len(events), time_ms, step))
            stream.append(events[-1])

    for step in steps:
        add(step)
        if step.kind == "burst":
            for _ in range(step.repeats):
                add(replace(step, gap_ms=step.pick % 3))
    return tuple(stream)


def streams(max_steps: int = 25) -> st.SearchStrategy[Stream]:
    """Messages of one customer: late, equal in time, repeated, corrected, in bursts, months apart."""
    # The length is drawn first: lists left to themselves stay short, and windows empty.
    steps = st.integers(1, max_steps).flatmap(lambda n: st.lists(_steps, min_size=n, max_size=n))
    return st.builds(_fold, st.sampled_from(_STARTS), steps)
