"""When a fraud becomes known, and who tells: labels that come late, or never."""

import heapq
from typing import NamedTuple

import numpy as np

from generator.draws import Stream
from generator.events import typology_code
from generator.rhythm import Day
from generator.rows import Rows
from generator.settings import DAY_MS, HOUR_MS, MINUTE_MS, BankSettings
from generator.world import World

SOURCES = ("chargeback", "analyst", "customer", "system")
CHARGEBACK, ANALYST, CUSTOMER, SYSTEM = range(len(SOURCES))

# Weights of chargeback, analyst and customer, and readiness to stay unreported.
_WAYS = {
    "card_testing": ((0.55, 0.22, 0.23), 1.5),
    "stolen_card": ((0.40, 0.18, 0.42), 0.7),
    "account_takeover": ((0.0, 0.28, 0.72), 0.6),
    "compromised_merchant": ((0.62, 0.15, 0.23), 1.0),
    "large_amount": ((0.38, 0.22, 0.40), 0.6),
    "mule_chain": ((0.0, 0.50, 0.50), 2.5),
    "compromised_terminal": ((0.62, 0.15, 0.23), 1.0),
}
_LATEST_DAYS = 120.0
_SOONEST_MS = 15 * MINUTE_MS
_LOOKALIKE_REVIEWS = 12.0


class Label(NamedTuple):
    """A label on its way.

    Attributes:
        time_ms: Label time.
        number: Tie-break: the order in which labels became known to be coming.
        customer: Whose.
        transaction: Number of the transaction, -1 for the closure of an account.
        label: fraud, genuine or account_closed.
        source: Place in `SOURCES`.
        typology: Code of the truth, 0 for genuine.
    """

    time_ms: int
    number: int
    customer: int
    transaction: int
    label: str
    source: int
    typology: int


def reported(rng: np.random.Generator, settings: BankSettings, rows: Rows, typology: str) -> Rows:
    """Rows of one episode with the time and source of their labels.

    The whole episode is reported at once, and what would have come after the report does not
    happen: the card or the account is blocked by then.

    Source:
        Delays: most disputes are raised within the first statement period, some up to the schemes' limit
        of 120 days (Visa dispute condition 10, Mastercard chargeback guide).
    """
    rows = rows.copy()
    rows["typology"] = typology_code(typology)
    weights, silence = _WAYS[typology]
    if rng.random() < min(settings.unreported_rate * silence, 0.9):
        return rows
    source = int(rng.choice(3, p=weights))
    median = settings.label_delay_days
    # Medians and spreads chosen so that the median over all sources is about `label_delay_days`.
    median_days, sigma = ((2.0 * median, 0.7), (0.2, 1.0), (0.95 * median, 0.9))[source]
    delay_days = min(float(np.exp(rng.normal(np.log(median_days), sigma))), _LATEST_DAYS)
    known_ms = int(rows["time_ms"].min()) + _SOONEST_MS + int(delay_days * DAY_MS)
    rows = rows[rows["time_ms"] < known_ms - _SOONEST_MS // 2]
    # Somebody goes through a list: one after the other, minutes apart.
    rows["label_ms"] = known_ms + np.cumsum(rng.integers(1_000, 3 * MINUTE_MS, rows.size))
    rows["label_by"] = source
    return rows


class Reports:
    """Labels that are known to come, by time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending: list[Label] = []
        self._count = 0
        ends = world.settings.end_ms
        closed = world.lifetimes.closed_ms
        for customer in np.flatnonzero((closed < ends) & (closed >= world.settings.start_ms)).tolist():
            self._push(int(closed[customer]), customer, -1, "account_closed", SYSTEM, 0)

    def __len__(self) -> int:
        """Labels pending."""
        return len(self._pending)

    def take_in(self, day: Day, rows: Rows, first_number: int) -> None:
        """Note the labels a day's transactions will have.

        Args:
            day: The day.
            rows: Booked, in the order they are numbered.
            first_number: Number of the first.
        """
        ends = self._world.settings.end_ms
        known = np.flatnonzero((rows["label_ms"] > 0) & (rows["label_ms"] < ends))
        for place in known.tolist():
            row = rows[place]
            self._push(
                int(row["label_ms"]),
                int(row["customer"]),
                first_number + place,
                "fraud",
                int(row["label_by"]),
                int(row["typology"]),
            )
        self._review(day, rows, first_number)

    def _review(self, day: Day, rows: Rows, first_number: int) -> None:
        """An analyst looks at some transactions that turn out genuine: mostly at those that looked odd."""
        rng = self._world.random(Stream.REPORTS, day)
        rate = self._world.settings.review_rate * np.where(rows["lookalike"] > 0, _LOOKALIKE_REVIEWS, 1.0)
        looked_at = np.flatnonzero((rng.random(rows.size) < rate) & (rows["typology"] == 0))
        hours = np.minimum(np.exp(rng.normal(np.log(5.0), 1.0, looked_at.size)), 72.0)
        for place, wait in zip(looked_at.tolist(), hours.tolist(), strict=True):
            time_ms = int(rows["time_ms"][place]) + _SOONEST_MS + int(wait * HOUR_MS)
            if time_ms < self._world.settings.end_ms:
                self._push(time_ms, int(rows["customer"][place]), first_number + place, "genuine", ANALYST, 0)

    def _push(
        self, time_ms: int, customer: int, transaction: int, label: str, source: int, typology: int
    ) -> None:
        self._count += 1
        heapq.heappush(
            self._pending, Label(time_ms, self._count, customer, transaction, label, source, typology)
        )

    def due(self, before_ms: int) -> list[Label]:
        """Labels with a time before a moment, in order; they are no longer pending."""
        due = []
        while self._pending and self._pending[0].time_ms < before_ms:
            due.append(heapq.heappop(self._pending))
        return due
