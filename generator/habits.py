"""What customers usually do: where they shop, how much, with which devices, whom they pay."""

from dataclasses import dataclass

import numpy as np

from generator.draws import Floats, Ints, Stream, choose, generator_for
from generator.merchants import CATEGORIES, Merchants
from generator.network import Carrier, Devices, home_ips
from generator.profiles import Profiles, by_segment
from generator.rows import NONE
from generator.settings import BankSettings

LOCAL, ONLINE = 11, 5
"""Favourite merchants around home and on the internet."""
PAYEES = 6

# A small town has fewer shops than favourites: some stay doubled.
_REDRAWS = 4

# Counterparties are numbers until they become text: the bank's own accounts, their savings, others' accounts.
SAVINGS_FIRST = 1 << 30
EXTERNAL_FIRST = 1 << 31

# A typical card payment in major units, averaged over trades: what `spend_scale` is relative to.
_MEAN_PAYMENT = 29.0


@dataclass(slots=True)
class Habits:
    """Habits of all customers; life changes some of them.

    Attributes:
        city: Home, place in `Merchants.cities`. Shape: (n,).
        home_ip: Address of the household. Shape: (n,).
        phone: Device number. Shape: (n,).
        desk: Device number of a computer, `NONE` without one. Shape: (n,).
        local: Favourite shops, best loved first. Shape: (n, LOCAL).
        local_cumulative: Share of local visits. Shape: (n, LOCAL).
        favourite_online: Favourite online shops. Shape: (n, ONLINE).
        online_cumulative: Share of orders. Shape: (n, ONLINE).
        purchases: Card payments on an average day. Shape: (n,).
        online_share: Share of them online. Shape: (n,).
        novelty: Share of them at merchants that are no favourites. Shape: (n,).
        cash: Withdrawals on an average day. Shape: (n,).
        spend_scale: Size of payments relative to everybody's. Shape: (n,).
        shift_h: Hours later than most people. Shape: (n,).
        weekend: Love of weekends: added to the factor of Saturday and Sunday. Shape: (n,).
        transfers: Transfers to people on an average day. Shape: (n,).
        payees: Counterparties paid now and then. Shape: (n, PAYEES).
        card: How often the card has been replaced. Shape: (n,).
    """

    city: Ints
    home_ip: Ints
    phone: Ints
    desk: Ints
    local: Ints
    local_cumulative: Floats
    favourite_online: Ints
    online_cumulative: Floats
    purchases: Floats
    online_share: Floats
    novelty: Floats
    cash: Floats
    spend_scale: Floats
    shift_h: Floats
    weekend: Floats
    transfers: Floats
    payees: Ints
    card: Ints
    devices: Devices
    carrier: Carrier

    @classmethod
    def draw(cls, settings: BankSettings, profiles: Profiles, merchants: Merchants) -> "Habits":
        """Habits from a seed."""
        rng = generator_for(settings.seed, Stream.HABITS)
        n, segment = settings.customers, profiles.segment
        weights = np.array([city.weight for city in merchants.cities[: merchants.home_cities]])
        city = rng.choice(merchants.home_cities, n, p=weights / weights.sum())
        devices = Devices(0)
        phone, desk = devices.new(n), devices.new(n)
        desk = np.where(rng.random(n) < 0.55, desk, NONE)
        home_ip = home_ips(rng, n)
        # Some households are two customers: one address, one computer.
        shared = np.flatnonzero(rng.random(n // 2) < 0.06)
        for mine, theirs in ((2 * shared, 2 * shared + 1),):
            home_ip[theirs], desk[theirs], city[theirs] = home_ip[mine], desk[mine], city[mine]
        purchases = by_segment("purchases")[segment] * np.exp(rng.normal(-0.06, 0.35, n))
        wanted = by_segment("spending")[segment] * profiles.income / 365.0
        return cls(
            city=city,
            home_ip=home_ip,
            phone=phone,
            desk=desk,
            local=favourite_shops(rng, merchants, segment, city),
            local_cumulative=zipf(rng, n, LOCAL),
            favourite_online=_tasteful(rng, merchants, segment, np.full((n, ONLINE), NONE)),
            online_cumulative=zipf(rng, n, ONLINE),
            purchases=purchases,
            online_share=np.clip(by_segment("online")[segment] * np.exp(rng.normal(-0.1, 0.5, n)), 0.01, 0.8),
            novelty=rng.beta(2.0, 14.0, n),
            cash=by_segment("cash")[segment] * np.exp(rng.normal(-0.3, 0.8, n)),
            spend_scale=np.clip(wanted / (purchases * _MEAN_PAYMENT), 0.4, 4.0),
            shift_h=by_segment("hours_later")[segment] + rng.normal(0.0, 0.9, n),
            weekend=rng.normal(0.0, 0.18, n),
            transfers=0.035 * np.exp(rng.normal(-0.3, 0.8, n)),
            payees=draw_payees(rng, profiles.founders, (n, PAYEES)),
            card=np.zeros(n, np.int64),
            devices=devices,
            carrier=Carrier(n),
        )

    def typical_minor(self, customer: int) -> float:
        """A payment of middling size for a customer, in minor units."""
        return 2_200.0 * float(self.spend_scale[customer])


def favourite_shops(rng: np.random.Generator, merchants: Merchants, segment: Ints, city: Ints) -> Ints:
    """Shops of a city that suit a segment. Shape: (n, LOCAL) from (n,)."""
    return _tasteful(rng, merchants, segment, np.repeat(city[:, None], LOCAL, axis=1))


def _tasteful(rng: np.random.Generator, merchants: Merchants, segment: Ints, city: Ints) -> Ints:
    """The better suited of two draws, hardly ever the same for one customer twice.

    Shape: as `city`, whose entries are all `NONE` for online shops.
    """
    online = bool((city == NONE).all())
    taste = _tastes()

    def drawn(place: Ints, segments: Ints) -> Ints:
        pool, group = (merchants.online, place * 0) if online else (merchants.shops, place)
        one, other = pool.draw(rng, group), pool.draw(rng, group)
        better = taste[segments, merchants.category[one]] >= taste[segments, merchants.category[other]]
        return np.where(better, one, other)

    who = np.repeat(segment[:, None], city.shape[1], axis=1)
    found = drawn(city, who)
    for _ in range(_REDRAWS):
        again = np.zeros(found.shape, np.bool_)
        for rank in range(1, found.shape[1]):
            again[:, rank] = (found[:, :rank] == found[:, [rank]]).any(axis=1)
        found[again] = drawn(city[again], who[again])
    return found


def _tastes() -> Floats:
    """Liking of a segment for a trade, 1 where nothing is said. Shape: (segments, categories)."""
    likes = {
        "student": {
            "fast food": 2,
            "bar": 2,
            "digital goods": 2,
            "furniture": 0.3,
            "jewellery": 0.2,
            "fuel": 0.4,
        },
        "mass": {"grocery": 1.5, "fuel": 1.4},
        "affluent": {"restaurant": 2, "hotel": 2, "jewellery": 1.5, "airline": 2, "fast food": 0.5},
        "senior": {
            "pharmacy": 3,
            "bakery": 2,
            "bar": 0.4,
            "digital goods": 0.2,
            "gambling": 0.3,
            "grocery": 2,
        },
        "business": {"fuel": 2, "hardware": 2.5, "taxi": 2, "restaurant": 1.6, "travel agency": 2},
    }
    return np.array([[likes[name].get(trade.name, 1.0) for trade in CATEGORIES] for name in likes])


def zipf(rng: np.random.Generator, n: int, columns: int) -> Floats:
    """Cumulative shares that fall with rank, for each customer at a pace of its own. Shape: (n, columns)."""
    pace = rng.uniform(0.7, 1.5, n)
    share = np.arange(1, columns + 1)[None, :] ** -pace[:, None]
    cumulative: Floats = np.cumsum(share, axis=1) / share.sum(axis=1, keepdims=True)
    return cumulative


def draw_payees(rng: np.random.Generator, founders: int, shape: tuple[int, ...]) -> Ints:
    """Accounts people pay: a third in the same bank, the others elsewhere.

    Args:
        rng: Random numbers.
        founders: Customers from before the span: accounts that certainly exist.
        shape: Of the result.
    """
    inside = rng.random(shape) < 0.33
    return np.where(
        inside, rng.integers(0, founders, shape), EXTERNAL_FIRST + rng.integers(0, 60_000_000, shape)
    )


def favourite(rng: np.random.Generator, favourites: Ints, cumulative: Floats, who: Ints) -> Ints:
    """One of each customer's favourites, by preference. Shape: (m,) for `who` of shape (m,)."""
    return favourites[who, choose(rng, cumulative[who])]
