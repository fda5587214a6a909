"""Where money is spent: shops, online shops and cash machines."""

from typing import NamedTuple

import numpy as np

from generator.draws import Floats, Ints, Pools, Stream, generator_for
from generator.places import CITIES, City, cities_of_bank, scatter
from generator.rhythm import cumulative_hours
from generator.settings import BankSettings


class Category(NamedTuple):
    """A trade.

    Attributes:
        mcc: Merchant category code, ISO 18245.
        visits: Share of visits on the high street; 0 for a trade that is only online.
        online: Share of orders online.
        median: Median amount of a payment, in major units.
        sigma: Spread of the amount's logarithm.
        hours: Profile in `rhythm.HOURS`.
        resale: How well what it sells turns into money: 0 to 1, a thief's taste.
    """

    name: str
    mcc: str
    visits: float
    online: float
    median: float
    sigma: float
    hours: str
    resale: float


CATEGORIES = (
    Category("cash machine", "6011", 0, 0, 50, 0.6, "cash", 0.0),
    Category("grocery", "5411", 0.27, 0.05, 27, 0.75, "shop", 0.15),
    Category("bakery", "5462", 0.10, 0, 5.4, 0.5, "morning", 0.0),
    Category("restaurant", "5812", 0.09, 0, 25, 0.6, "meal", 0.05),
    Category("fast food", "5814", 0.08, 0.06, 11, 0.45, "meal", 0.05),
    Category("bar", "5813", 0.04, 0, 13, 0.6, "evening", 0.05),
    Category("fuel", "5541", 0.07, 0, 46, 0.4, "shop", 0.4),
    Category("pharmacy", "5912", 0.05, 0.01, 15, 0.65, "shop", 0.05),
    Category("commuter transport", "4111", 0.05, 0.03, 4.2, 0.8, "morning", 0.0),
    Category("taxi", "4121", 0.015, 0.04, 16, 0.5, "evening", 0.1),
    Category("tobacco", "5993", 0.025, 0, 12, 0.5, "shop", 0.4),
    Category("clothing", "5651", 0.05, 0.13, 44, 0.7, "shop", 0.5),
    Category("department store", "5311", 0.03, 0.04, 41, 0.8, "shop", 0.5),
    Category("hardware", "5200", 0.028, 0.03, 36, 0.9, "shop", 0.3),
    Category("books", "5942", 0.015, 0.03, 17, 0.5, "shop", 0.05),
    Category("sports", "5941", 0.012, 0.03, 42, 0.8, "shop", 0.35),
    Category("hairdresser", "7230", 0.013, 0, 32, 0.5, "shop", 0.0),
    Category("cinema", "7832", 0.012, 0.02, 14, 0.5, "evening", 0.05),
    Category("furniture", "5712", 0.007, 0.02, 210, 0.95, "shop", 0.2),
    Category("electronics", "5732", 0.015, 0.06, 115, 1.0, "shop", 1.0),
    Category("jewellery", "5944", 0.004, 0.005, 150, 0.95, "shop", 1.0),
    Category("hotel", "7011", 0.010, 0.02, 135, 0.65, "evening", 0.1),
    Category("online marketplace", "5999", 0, 0.17, 31, 0.95, "online", 0.8),
    Category("digital goods", "5816", 0, 0.08, 9.5, 0.8, "online", 0.7),
    Category("streaming", "4899", 0, 0.03, 11, 0.3, "online", 0.1),
    Category("telephone", "4814", 0, 0.04, 22, 0.5, "online", 0.5),
    Category("gift cards", "5947", 0.004, 0.02, 48, 0.7, "online", 1.0),
    Category("airline", "4511", 0, 0.02, 190, 0.7, "online", 0.4),
    Category("travel agency", "4722", 0, 0.025, 240, 0.8, "online", 0.2),
    Category("gambling", "7995", 0, 0.015, 20, 0.9, "online", 0.5),
    Category("virtual currency", "6051", 0, 0.008, 110, 1.0, "online", 0.9),
    Category("food delivery", "5811", 0, 0.06, 24, 0.4, "meal", 0.05),
)
CASH_MACHINE = 0
CATEGORY = {category.name: code for code, category in enumerate(CATEGORIES)}

ONLINE = -1
_ONLINE_ABROAD = ("IE", "LU", "US", "DE", "GB", "CN", "NL")
_SHARE_AT_HOME, _SHARE_ONLINE = 0.62, 0.24
# What a city needs to live in it: a cash machine and a grocery come before chance.
_SMALLEST_CITY = 4


class Merchants:
    """All merchants of a bank; index is identity.

    Attributes:
        cities: Cities the bank knows, those at home first.
        home_cities: How many of them are at home.
        city: Place in `cities`, `ONLINE` for an online shop. Shape: (n,).
        category: Place in `CATEGORIES`. Shape: (n,).
        country: ISO 3166 alpha-2 codes.
        latitude: Degrees; not a number for an online shop. Shape: (n,).
        longitude: Degrees; not a number for an online shop. Shape: (n,).
        log_median: Logarithm of the median amount in minor units. Shape: (n,).
        sigma: Spread of the amount's logarithm. Shape: (n,).
        shops: Groups are cities.
        cash_machines: Groups are cities.
        online: One group of all online shops.
        online_by_category: Groups are categories; some are empty.
        hours: Cumulative share of visits by hour. Shape: (categories, 24).
        resale: `Category.resale` of each merchant. Shape: (n,).
    """

    def __init__(self, settings: BankSettings) -> None:
        rng = generator_for(settings.seed, Stream.MERCHANTS)
        total = settings.merchant_count
        at_home, online = int(total * _SHARE_AT_HOME), int(total * _SHARE_ONLINE)
        abroad = total - at_home - online
        self.cities, self.home_cities = cities_of_bank(
            settings.country, max(at_home // 15, 2), min(abroad // _SMALLEST_CITY, len(CITIES))
        )
        self.city = np.concatenate(
            [
                _spread(rng, self.cities[: self.home_cities], at_home),
                np.full(online, ONLINE),
                _spread(rng, self.cities[self.home_cities :], abroad) + self.home_cities,
            ]
        )
        self.category = self._categories(rng)
        self.country = self._countries(rng, settings.country)
        here = self.city != ONLINE
        self.latitude, self.longitude = np.full(total, np.nan), np.full(total, np.nan)
        self.latitude[here], self.longitude[here] = scatter(rng, self.cities, self.city[here])
        self._weigh(rng)

    def __len__(self) -> int:
        """Merchants, cash machines included."""
        return self.city.size

    def _categories(self, rng: np.random.Generator) -> Ints:
        visits = np.array([category.visits for category in CATEGORIES])
        orders = np.array([category.online for category in CATEGORIES])
        category: Ints = np.where(
            self.city == ONLINE,
            rng.choice(len(CATEGORIES), self.city.size, p=_flattened(orders)),
            rng.choice(len(CATEGORIES), self.city.size, p=_flattened(visits)),
        )
        # The n-th shop of each city, in order of index.
        order = np.argsort(self.city, kind="stable")
        first = np.searchsorted(self.city[order], self.city[order])
        nth = np.empty(self.city.size, np.int64)
        nth[order] = np.arange(self.city.size) - first
        shop = self.city != ONLINE
        category[shop & ((nth == 0) | (nth % 14 == 13))] = CASH_MACHINE
        category[shop & (nth == 1)] = CATEGORY["grocery"]
        # Somebody has to sell what everybody orders, in the smallest bank too.
        for place, name in enumerate(("online marketplace", "digital goods", "streaming", "electronics")):
            category[~shop & (nth == place)] = CATEGORY[name]
        return category

    def _countries(self, rng: np.random.Generator, home: str) -> list[str]:
        elsewhere = [country for country in _ONLINE_ABROAD if country != home]
        abroad = rng.random(self.city.size) < 0.45
        pick = rng.integers(0, len(elsewhere), self.city.size)
        online = [elsewhere[place] if away else home for place, away in zip(pick, abroad, strict=True)]
        return [
            online[index] if city == ONLINE else self.cities[city].country
            for index, city in enumerate(self.city.tolist())
        ]

    def _weigh(self, rng: np.random.Generator) -> None:
        visits = np.array([category.visits for category in CATEGORIES])
        orders = np.array([category.online for category in CATEGORIES])
        online, machine = self.city == ONLINE, self.category == CASH_MACHINE
        # A few merchants are known to everybody, most to hardly anyone.
        fame = rng.pareto(1.3, len(self)) + 0.3
        demand = np.where(online, orders[self.category], visits[self.category])
        supply = np.where(online, _flattened(orders)[self.category], _flattened(visits)[self.category])
        weight = np.where(machine, 1.0, np.minimum(fame, 40.0) * demand / np.maximum(supply, 1e-9))
        self.fame = weight
        self.price = np.exp(rng.normal(0.0, 0.25, len(self)))
        medians = np.array([category.median for category in CATEGORIES])
        self.log_median = np.log(medians[self.category] * 100.0 * self.price)
        self.sigma = np.array([category.sigma for category in CATEGORIES])[self.category]
        self.resale = np.array([category.resale for category in CATEGORIES])[self.category]
        self.hours = cumulative_hours(tuple(category.hours for category in CATEGORIES))
        cities = len(self.cities)
        hidden = cities  # A group past the cities for those a pool does not hold.
        self.shops = Pools(np.where(online | machine, hidden, self.city), weight, cities)
        self.cash_machines = Pools(np.where(machine, self.city, hidden), weight, cities)
        self.online = Pools(np.where(online, 0, 1), weight, 1)
        self.online_by_category = Pools(
            np.where(online, self.category, len(CATEGORIES)), weight, len(CATEGORIES)
        )

    def amounts(self, rng: np.random.Generator, merchant: Ints, scale: Floats) -> Ints:
        """Amounts of payments in minor units, priced as the trade does.

        Args:
            rng: Random numbers.
            merchant: Where. Shape: (n,).
            scale: What this customer spends relative to others. Shape: (n,).
        """
        log_amount = self.log_median[merchant] + self.sigma[merchant] * rng.standard_normal(merchant.size)
        amount: Ints = np.maximum(np.exp(log_amount) * scale, 50.0).astype(np.int64)
        ending = rng.random(merchant.size)
        amount = np.where((ending < 0.2) & (amount > 300), amount // 100 * 100 + 99, amount)
        amount = np.where((ending > 0.85) & (amount > 1000), amount // 50 * 50, amount)
        return amount

    def of_category(self, rng: np.random.Generator, name: str, city: int) -> int:
        """A merchant of a trade: one in the city if chance finds it, else an online one, else any online."""
        code = CATEGORY[name]
        if city != ONLINE:
            near = self.shops.members(city)
            near = near[self.category[near] == code]
            if near.size:
                return int(near[rng.integers(near.size)])
        if self.online_by_category.sizes()[code]:
            return int(self.online_by_category.draw(rng, np.array([code]))[0])
        return int(self.online.draw(rng, np.zeros(1, np.int64))[0])


def _spread(rng: np.random.Generator, cities: tuple[City, ...], count: int) -> Ints:
    """City of each of `count` merchants: the least a city needs, the rest by its weight."""
    least = np.repeat(np.arange(len(cities)), _SMALLEST_CITY)[:count]
    weight = np.array([city.weight for city in cities])
    rest = rng.choice(len(cities), count - least.size, p=weight / weight.sum())
    return np.concatenate([least, rest])


def _flattened(share: Floats) -> Floats:
    """Share of merchants by trade: rare trades have more merchants than visits."""
    root = np.sqrt(share)
    flattened: Floats = root / root.sum()
    return flattened
