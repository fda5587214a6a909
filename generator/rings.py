"""Who is behind the fraud: rings with devices, addresses, accounts and shops they come back to."""

from dataclasses import dataclass

import numpy as np

from generator.draws import Floats, Ints
from generator.habits import EXTERNAL_FIRST
from generator.network import Devices, guest_ips, home_ips, hosted_ips
from generator.rhythm import Day, time_of_day
from generator.rows import NONE
from generator.settings import HOUR_MS
from generator.world import World

_CUSTOMERS_PER_RING = 1_500
_DAYS_OF_A_RING = 35.0
_OWN_TOOLS_SHARE = 0.55


@dataclass(slots=True)
class Ring:
    """A group that works for some weeks, then changes everything."""

    devices: Ints
    ips: Ints
    accounts: Ints
    shops: Ints


class Rings:
    """The rings at work on a day."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        # Far from the customers' own numbers: more fraud gives nobody else another phone.
        self._devices = Devices(1 << 36)
        count = max(2, world.settings.customers // _CUSTOMERS_PER_RING)
        self._rings = [self._new_ring(world, rng) for _ in range(count)]

    def change(self, world: World, rng: np.random.Generator) -> None:
        """Some give up their tools overnight."""
        for place in np.flatnonzero(rng.random(len(self._rings)) < 1.0 / _DAYS_OF_A_RING).tolist():
            self._rings[place] = self._new_ring(world, rng)

    def pick(self, world: World, rng: np.random.Generator) -> Ring:
        """A ring at work, or somebody nobody has met before."""
        if rng.random() < _OWN_TOOLS_SHARE:
            return self._rings[int(rng.integers(len(self._rings)))]
        return self._new_ring(world, rng)

    def _new_ring(self, world: World, rng: np.random.Generator) -> Ring:
        ips = np.stack(
            [home_ips(rng, 4), hosted_ips(rng, 4), guest_ips(rng, 4), world.habits.carrier.ips(rng, 4)]
        )
        return Ring(
            devices=self._devices.new(3),
            ips=ips[rng.integers(0, 4, 4), np.arange(4)],
            accounts=EXTERNAL_FIRST + rng.integers(0, 60_000_000, 3),
            shops=resold(world, rng, 3, 0.0),
        )


def resold(world: World, rng: np.random.Generator, count: int, stealth: float) -> Ints:
    """Online shops whose goods turn into money; the stealthy order where everybody does."""
    drawn = world.merchants.online.draw(rng, np.zeros((3, count), np.int64))
    liking = world.merchants.resale[drawn] + rng.random((3, count)) * (0.2 + 1.3 * stealth)
    chosen: Ints = drawn[np.argmax(liking, axis=0), np.arange(count)]
    return chosen


@dataclass(slots=True)
class Case:
    """One victim of one fraud.

    Attributes:
        stealth: 0 for the careless, 1 for who behaves as the customer would.
    """

    world: World
    rng: np.random.Generator
    day: Day
    customer: int
    ring: Ring
    stealth: float

    @classmethod
    def of(cls, world: World, rng: np.random.Generator, day: Day, customer: int, rings: Rings) -> "Case":
        """A case with its ring and its stealth drawn."""
        return cls(world, rng, day, customer, rings.pick(world, rng), float(rng.beta(1.1, 1.8)))

    @property
    def typical_minor(self) -> float:
        """What the victim usually pays."""
        return self.world.habits.typical_minor(self.customer)

    @property
    def funds_minor(self) -> float:
        """What the victim's account holds, credit included."""
        ledger = self.world.ledger
        return float(ledger.balance[self.customer] + ledger.overdraft[self.customer])

    def begin(self, trade: int) -> int:
        """When it begins: at the trade's and the victim's usual hours, or at any hour."""
        if self.rng.random() < 0.35 + 0.6 * self.stealth:
            shift: Floats = self.world.habits.shift_h[[self.customer]]
            hours = self.world.merchants.hours
            return self.day.start_ms + int(time_of_day(self.rng, hours, np.array([trade]), shift)[0])
        return self.day.start_ms + int(self.rng.uniform(0.0, 24.0) * HOUR_MS)

    def after(self, begin_ms: int, count: int, mean_gap_ms: float) -> Ints:
        """Moments that follow each other at random gaps, the first one being the beginning."""
        gaps = 4_000 + self.rng.exponential(mean_gap_ms, count)
        gaps[:1] = 0
        return begin_ms + np.cumsum(gaps).astype(np.int64)

    def tools(self, known_share: float) -> tuple[int, int]:
        """Device and address the fraud comes from; `NONE` where the bank does not learn them."""
        device = int(self.rng.choice(self.ring.devices)) if self.rng.random() < known_share else NONE
        ip = int(self.rng.choice(self.ring.ips)) if self.rng.random() < known_share + 0.2 else NONE
        return device, ip
