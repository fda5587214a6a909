"""Which fraud begins on a day, and whom it hits."""

from dataclasses import dataclass, field

import numpy as np

from generator.account_fraud import account_takeover, large_amount, mule_chain
from generator.card_fraud import card_rows, card_testing, charged_again, misuse, stolen_card
from generator.draws import Bools, Floats, Ints, Stream, generator_for
from generator.merchants import ONLINE
from generator.profiles import SENIOR, STUDENT
from generator.reports import reported
from generator.rhythm import Day
from generator.rings import Case, Ring, Rings
from generator.rows import Rows
from generator.world import World

# Share of all victims. A mule counts as a victim: the account is misused either way.
_SHARES = {
    "card_testing": 0.17,
    "stolen_card": 0.19,
    "account_takeover": 0.18,
    "compromised_merchant": 0.20,
    "large_amount": 0.14,
    "mule_chain": 0.12,
    "compromised_terminal": 0.20,
}
# Those with one victim each; the others have a course of their own.
_SINGLE = ("card_testing", "stolen_card", "account_takeover", "large_amount")
_LEAST_FUNDS_MINOR = 25_000
_MULES_PER_CHAIN = 4.0
_CHARGED_AGAIN = 0.8
"""Share of those who used a terminal in wrong hands."""


@dataclass(slots=True)
class Campaign:
    """A merchant whose visitors' cards are copied for some days and misused weeks later.

    Attributes:
        merchant: The compromised one.
        ring: Who has the copies.
        cash_out: Where the copies are used.
        copied_until: First day on which nothing is copied any more.
        used_from: First day of misuse.
        used_until: First day after it.
        wanted: Victims.
        visitors: Customers whose card was copied, each once.
        terminal: Whether the fraud is at the merchant itself: cards used at its terminal are charged again.
    """

    merchant: int
    ring: Ring
    cash_out: Ints
    copied_until: int
    used_from: int
    used_until: int
    wanted: int
    visitors: list[int] = field(default_factory=list)
    terminal: bool = False


class Fraudsters:
    """All fraud of the bank; its rows go to the agenda."""

    def __init__(self, world: World) -> None:
        self._world = world
        rng = generator_for(world.settings.seed, Stream.FRAUD)
        self._rings = Rings(world, rng)
        self._campaigns: list[Campaign] = []
        # The first campaign comes early: a short span shows one as well.
        first_day = world.settings.typology_from.get("compromised_merchant", 0)
        self._next_campaign = first_day + float(rng.uniform(0.0, 4.0))
        self._next_terminal = world.settings.typology_from.get("compromised_terminal", 0) + float(
            rng.uniform(0.0, 4.0)
        )

    def __len__(self) -> int:
        """Customers whose copied cards are waiting to be misused."""
        return sum(len(campaign.visitors) for campaign in self._campaigns)

    def act(self, day: Day) -> None:
        """Begin what begins on a day."""
        world = self._world
        rng = world.random(Stream.FRAUD, day)
        self._rings.change(world, rng)
        settled = world.lifetimes.here(day) & (world.lifetimes.faded(day) < 0.5)
        # Nobody is robbed on the day the account is opened.
        settled &= world.lifetimes.joined_ms < day.start_ms
        if not settled.any():
            return
        robbed = world.settings.fraud_rate / 30.0 * float(settled.sum())
        victims = {typology: robbed * share for typology, share in self._shares(day).items()}
        for typology in _SINGLE:
            for _ in range(int(rng.poisson(victims.get(typology, 0.0)))):
                self._hit(day, rng, typology, settled)
        for _ in range(int(rng.poisson(victims.get("mule_chain", 0.0) / _MULES_PER_CHAIN))):
            self._launder(day, rng, settled)
        if victims.get("compromised_merchant", 0.0) > 0.0:
            self._compromise(day, rng, victims["compromised_merchant"])
        if victims.get("compromised_terminal", 0.0) > 0.0:
            self._take_terminal(day, rng, victims["compromised_terminal"])
        for campaign in self._campaigns:
            self._misuse(day, rng, campaign, settled)
        self._campaigns = [campaign for campaign in self._campaigns if day.index < campaign.used_until]

    def _shares(self, day: Day) -> dict[str, float]:
        """Share of the victims of each typology that occurs on a day; they add up to 1."""
        settings = self._world.settings
        occurring = {
            typology: _SHARES[typology]
            for typology in settings.typologies
            if day.index >= settings.typology_from.get(typology, 0)
        }
        total = sum(occurring.values())
        return {typology: share / total for typology, share in occurring.items()}

    def see(self, day: Day, rows: Rows) -> None:
        """Copy the cards used at compromised merchants.

        Args:
            day: The day.
            rows: What was booked on it.
        """
        copying = [campaign for campaign in self._campaigns if day.index < campaign.copied_until]
        if not copying:
            return
        used = card_rows(rows)
        for campaign in copying:
            there = np.unique(used["customer"][used["merchant"] == campaign.merchant]).tolist()
            # More than four times the victims are never needed: memory stays bounded.
            room = 4 * campaign.wanted - len(campaign.visitors)
            campaign.visitors.extend([who for who in there if who not in campaign.visitors][: max(room, 0)])

    def _hit(self, day: Day, rng: np.random.Generator, typology: str, settled: Bools) -> None:
        world = self._world
        liking = np.where(settled, self._liking(typology), 0.0)
        customer = _drawn(rng, liking)
        if customer is None:
            return
        case = Case.of(world, rng, day, customer, self._rings)
        if typology == "card_testing":
            rows = card_testing(case)
        elif typology == "stolen_card":
            rows = stolen_card(case)
        elif typology == "account_takeover":
            rows = account_takeover(case)
        else:
            rows = large_amount(case)
        world.agenda.add(reported(rng, world.settings, rows, typology))

    def _liking(self, typology: str) -> Floats:
        """How likely each customer is the victim. Shape: (n,)."""
        world = self._world
        liking = np.ones(world.settings.customers)
        if typology == "card_testing":
            liking = world.habits.online_share * world.habits.purchases
        elif typology == "stolen_card":
            liking = world.habits.purchases.copy()
        elif typology == "account_takeover":
            liking = np.where(world.profiles.segment == SENIOR, 2.0, 1.0)
        if typology == "large_amount":
            # An amount beyond habit has to be there in the first place.
            liking = liking * (world.ledger.balance > 20_000.0 * world.habits.spend_scale)
        elif typology != "card_testing":
            liking = liking * (world.ledger.balance > _LEAST_FUNDS_MINOR)
        return liking

    def _launder(self, day: Day, rng: np.random.Generator, settled: Bools) -> None:
        world = self._world
        young = np.where(world.profiles.segment == STUDENT, 4.0, 1.0)
        new = np.where(world.profiles.opened_on > day.index - 120, 4.0, 1.0)
        liking: Floats = np.where(settled, young * new, 0.0)
        mules = []
        for _ in range(1 + int(rng.integers(2, 5))):
            mule = _drawn(rng, liking)
            if mule is None:
                break
            liking[mule] = 0.0
            mules.append(mule)
        if len(mules) < 3:
            return
        case = Case.of(world, rng, day, mules[0], self._rings)
        world.agenda.add(reported(rng, world.settings, mule_chain(case, mules[1:]), "mule_chain"))

    def _compromise(self, day: Day, rng: np.random.Generator, victims_per_day: float) -> None:
        """Begin a campaign when it is time; the fewer victims a day, the rarer."""
        if day.index < self._next_campaign:
            return
        world = self._world
        wanted = max(4, min(round(0.006 * world.settings.customers), 80))
        self._next_campaign = day.index + max(wanted / victims_per_day, 1.0) * float(rng.uniform(0.8, 1.2))
        merchants = world.merchants
        merchant = self._visited(rng)
        ring = self._rings.pick(world, rng)
        # Some merchants are victims; some charge the cards again themselves.
        accomplice = rng.random() < 0.35
        cash_out = np.array([merchant]) if accomplice else ring.shops
        if not accomplice and rng.random() < 0.35:
            city = int(merchants.city[merchant])
            town = city if city != ONLINE else 0
            cash_out = np.concatenate([ring.shops[:2], merchants.shops.draw(rng, np.array([town]))])
        until = day.index + int(rng.integers(5, 13))
        begin = until + int(rng.integers(1, 8))
        self._campaigns.append(
            Campaign(merchant, ring, cash_out, until, begin, begin + int(rng.integers(8, 22)), wanted)
        )

    def _visited(self, rng: np.random.Generator, *, shops: bool = False) -> int:
        """A merchant enough people visit: weight by fame among those that sell things; or shops alone."""
        merchants = self._world.merchants
        selling = np.where(merchants.category > 0, np.minimum(merchants.fame, 20.0), 0.0)
        selling = np.where(merchants.city >= merchants.home_cities, 0.0, selling)
        if shops:
            # Not the few where everybody goes.
            selling = np.where((merchants.city == ONLINE) | (merchants.fame > 5.0), 0.0, selling)
        return int(rng.choice(len(merchants), p=selling / selling.sum()))

    def _take_terminal(self, day: Day, rng: np.random.Generator, victims_per_day: float) -> None:
        """Get hold of a terminal when it is time, for three to five weeks."""
        if day.index < self._next_terminal:
            return
        world = self._world
        wanted = max(4, min(round(0.05 * world.settings.customers), 200))
        self._next_terminal = day.index + max(wanted / victims_per_day, 1.0) * float(rng.uniform(0.8, 1.2))
        merchant, ring = self._visited(rng, shops=True), self._rings.pick(world, rng)
        until = day.index + int(rng.integers(21, 36))
        self._campaigns.append(
            Campaign(merchant, ring, np.array([merchant]), until, day.index, until, wanted, terminal=True)
        )

    def _misuse(self, day: Day, rng: np.random.Generator, campaign: Campaign, settled: Bools) -> None:
        if not campaign.used_from <= day.index < campaign.used_until or not campaign.visitors:
            return
        world = self._world
        days = campaign.used_until - campaign.used_from
        due = int(rng.poisson(min(campaign.wanted, len(campaign.visitors)) / days))
        if campaign.terminal:
            # Whoever was there yesterday; not everybody, or it would be known at once.
            due = int(rng.binomial(len(campaign.visitors), _CHARGED_AGAIN))
        for _ in range(min(due, len(campaign.visitors))):
            customer = campaign.visitors.pop(int(rng.integers(len(campaign.visitors))))
            if not settled[customer]:
                continue
            case = Case.of(world, rng, day, customer, self._rings)
            case.ring = campaign.ring
            if campaign.terminal:
                rows, name = charged_again(case, campaign.merchant), "compromised_terminal"
            else:
                rows, name = misuse(case, campaign.cash_out), "compromised_merchant"
            world.agenda.add(reported(rng, world.settings, rows, name))
        if campaign.terminal:
            campaign.visitors.clear()


def _drawn(rng: np.random.Generator, liking: Floats) -> int | None:
    """One customer by liking, ``None`` if nobody is liked."""
    cumulative = np.cumsum(liking)
    if cumulative[-1] <= 0:
        return None
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
