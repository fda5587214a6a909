"""One run through the days of a bank."""

from collections.abc import Iterator

import numpy as np

from generator.draws import Bools, Ints, Stream
from generator.events import ALL_TYPOLOGIES, CARD_TYPOLOGIES, LOOKALIKES, BankEvent, typology_code
from generator.fraud import Fraudsters
from generator.habits import EXTERNAL_FIRST
from generator.ledger import arrivals
from generator.life import live
from generator.lifetimes import FAR_MS
from generator.messages import Messages
from generator.reports import Label, Reports
from generator.rhythm import Day
from generator.routine import Routine
from generator.rows import IS_CREDIT, NONE, Kind, Rows, make_rows
from generator.settings import DAY_MS, BankSettings
from generator.spending import spending
from generator.world import World

_REPLACED_AFTER = frozenset(typology_code(name) for name in CARD_TYPOLOGIES)
_RENEWALS_A_YEAR = 0.3
_EMPTY_MINOR = 500
_TYPOLOGY_NAMES = (None, *ALL_TYPOLOGIES)
_LOOKALIKE_NAMES = (None, *LOOKALIKES)


class Simulation:
    """A bank that lives one day after the other; what it holds does not grow with the days.

    Attributes:
        world: The bank on the day reached.
    """

    def __init__(self, settings: BankSettings) -> None:
        self.world = World.draw(settings)
        self._routine = Routine(settings, self.world.profiles, self.world.merchants)
        self._fraudsters = Fraudsters(self.world)
        self._reports = Reports(self.world)
        self._messages = Messages(self.world)
        self._next_day = 0
        self._booked = 0

    @property
    def pending(self) -> int:
        """Rows, labels and copied cards kept for later days."""
        return len(self.world.agenda) + len(self._reports) + len(self._fraudsters)

    def run(self) -> Iterator[BankEvent]:
        """Events of all days left."""
        while self._next_day < self.world.settings.days:
            yield from self.live_day()

    def live_day(self) -> Iterator[BankEvent]:
        """Events of the next day, in order of time; it has passed when the last is taken."""
        day = Day.of(self.world.settings, self._next_day)
        self._next_day += 1
        changed = live(self.world, day)
        rows, balance = self._book(day)
        first = self._booked
        self._booked += rows.size
        self._fraudsters.see(day, rows)
        self.world.agenda.add(self._reimbursed(rows))
        self._reports.take_in(day, rows, first)
        due = self._reports.due(day.start_ms + DAY_MS)
        if day.index == 0:
            # Whoever is a customer already is told about before anything happens.
            for customer in np.flatnonzero(self.world.profiles.opened_on < 0).tolist():
                yield BankEvent(day.start_ms, "customers", self._messages.customer(customer, day.start_ms))
        yield from _merged(self._transactions(rows, balance, first), self._others(day, changed, due))
        self._replace_cards(day, due)

    def _book(self, day: Day) -> tuple[Rows, Ints]:
        """Everything that is tried on a day, and what of it is booked."""
        world = self.world
        self._fraudsters.act(day)
        routine = self._routine.rows(day, world.profiles, world.lifetimes, world.habits, world.ledger)
        tried = np.concatenate([routine, spending(world, day), world.agenda.take(day.index)])
        last_ms = world.lifetimes.last_ms
        leaving = (last_ms >= day.start_ms) & (last_ms < day.start_ms + DAY_MS)
        # In this order: who may not send has sent nothing that could arrive.
        tried = self._possible(tried, leaving)
        tried = np.concatenate([tried, self._possible(arrivals(tried, leaving.size), leaving)])
        joining = np.flatnonzero((world.profiles.opened_on == day.index) & ~leaving)
        return world.ledger.book(np.concatenate([tried, self._last(leaving), self._first(day, joining)]))

    def _possible(self, rows: Rows, leaving: Bools) -> Rows:
        """Rows of open accounts.

        Nothing before the account is open, nothing after the last transaction, and on that day
        nothing but it: it empties the account or pays for one last thing.
        """
        who, lives = rows["customer"], self.world.lifetimes
        since, until = lives.joined_ms[who], lives.last_ms[who]
        possible: Rows = rows[(rows["time_ms"] > since) & (rows["time_ms"] < until) & ~leaving[who]]
        return possible

    def _last(self, leaving: Bools) -> Rows:
        """The last transactions of those who leave today."""
        world = self.world
        who = np.flatnonzero(leaving)
        balance = world.ledger.balance[who]
        empties = (world.lifetimes.closed_ms[who] != FAR_MS) & (balance > _EMPTY_MINOR)
        buys = ~empties & (balance + world.ledger.overdraft[who] > 2_000)
        kind = np.where(empties, Kind.ONLINE_TRANSFER, np.where(buys, Kind.POS, Kind.FEE))
        return make_rows(
            who,
            world.lifetimes.last_ms[who],
            np.where(empties, balance, np.where(buys, 700 + who % 1_200, 250)),
            kind,
            merchant=np.where(kind == Kind.POS, world.habits.local[who, 0], NONE),
            counterparty=np.where(empties, EXTERNAL_FIRST + 90_000_000 + who % 9_000_000, NONE),
            device=np.where(empties, world.habits.phone[who], NONE),
            ip=np.where(empties, world.habits.home_ip[who], NONE),
        )

    def _first(self, day: Day, joining: Ints) -> Rows:
        """The money new customers bring."""
        rng = self.world.random(Stream.ACCOUNTS, day)
        amount = self.world.profiles.monthly_income[joining] * rng.uniform(0.3, 1.5, joining.size)
        joined = self.world.lifetimes.joined_ms[joining]
        return make_rows(
            joining,
            joined + rng.integers(60_000, 3_600_000, joining.size),
            amount.astype(np.int64),
            np.where(rng.random(joining.size) < 0.3, Kind.CASH_DEPOSIT, Kind.TRANSFER_IN),
        )

    def _reimbursed(self, rows: Rows) -> Rows:
        """What the bank pays back for reported fraud, days after the label; mules get nothing."""
        cheated = (rows["label_ms"] > 0) & (rows["typology"] != typology_code("mule_chain"))
        lost = rows[cheated & ~IS_CREDIT[rows["kind"]]]
        wait = (1 + lost["label_ms"] % 4) * DAY_MS
        return make_rows(
            lost["customer"].astype(np.int64),
            lost["label_ms"] + wait,
            lost["amount_minor"].astype(np.int64),
            Kind.REFUND,
            merchant=lost["merchant"].astype(np.int64),
        )

    def _transactions(self, rows: Rows, balance: Ints, first: int) -> Iterator[BankEvent]:
        times, typologies = rows["time_ms"].tolist(), rows["typology"].tolist()
        messages = self._messages.transactions(rows, balance, first)
        lookalikes = rows["lookalike"].tolist()
        for time_ms, typology, lookalike, message in zip(
            times, typologies, lookalikes, messages, strict=True
        ):
            yield BankEvent(
                time_ms, "transactions", message, _TYPOLOGY_NAMES[typology], _LOOKALIKE_NAMES[lookalike]
            )

    def _others(self, day: Day, changed: Ints, due: list[Label]) -> list[BankEvent]:
        """New customers, changed ones and labels of a day, in order of time."""
        joined_ms = self.world.lifetimes.joined_ms
        told = [
            (int(joined_ms[customer]), customer)
            for customer in np.flatnonzero(self.world.profiles.opened_on == day.index).tolist()
        ]
        # Changes are booked in the night.
        told += [(day.start_ms + 1 + place, customer) for place, customer in enumerate(changed.tolist())]
        events = [BankEvent(time, "customers", self._messages.customer(who, time)) for time, who in told]
        events += [
            BankEvent(label.time_ms, "labels", self._messages.label(label), _TYPOLOGY_NAMES[label.typology])
            for label in due
        ]
        return sorted(events, key=lambda event: event.time_ms)

    def _replace_cards(self, day: Day, due: list[Label]) -> None:
        """Cards with reported fraud are replaced overnight, others when they expire."""
        cards = self.world.habits.card
        rng = self.world.random(Stream.HABITS, day)
        expired = rng.random(cards.size) < _RENEWALS_A_YEAR / 365.0
        expired[[label.customer for label in due if label.typology in _REPLACED_AFTER]] = True
        cards[expired] += 1


def _merged(many: Iterator[BankEvent], few: list[BankEvent]) -> Iterator[BankEvent]:
    """Two streams in order of time as one; at the same moment the few come first."""
    place = 0
    for event in many:
        while place < len(few) and few[place].time_ms <= event.time_ms:
            yield few[place]
            place += 1
        yield event
    yield from few[place:]
