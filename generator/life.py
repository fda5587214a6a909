"""What happens to people now and then, and looks like fraud: journeys, moves, new phones, large amounts."""

import numpy as np

from generator.draws import Bools, Ints, Stream
from generator.events import lookalike_code
from generator.habits import EXTERNAL_FIRST, LOCAL, SAVINGS_FIRST, draw_payees, favourite_shops
from generator.merchants import ONLINE
from generator.network import home_ips
from generator.profiles import SENIOR, by_segment
from generator.rhythm import Day
from generator.rows import NO_ROWS, NONE, Kind, Rows, make_rows
from generator.settings import DAY_MS, HOUR_MS, MINUTE_MS
from generator.world import World

# Times a year for an average customer.
_MOVES, _PHONES, _BIG_PURCHASES, _PASS_THROUGHS = 0.09, 0.5, 2.4, 0.5
_RAISES_A_MONTH = 0.02
_NEW_NUMBER_SHARE = 0.25
_LOCAL_KEPT_SHARE = 0.3

_SEGMENT_TRIPS = by_segment("trips")
_FURNISHING = ("furniture", "furniture", "hardware", "hardware", "department store", "electronics")
_DEAR = ("electronics", "furniture", "jewellery", "travel agency", "airline", "sports")


def live(world: World, day: Day) -> Ints:
    """Let a day's changes happen: journeys begin, homes and phones change, large amounts are planned.

    Rows they bring go to the agenda, for today or later.

    Returns:
        Customers whose master data changed.
    """
    rng = world.random(Stream.LIFE, day)
    settled = world.lifetimes.here(day) & (world.lifetimes.faded(day) < 0.3) & ~world.lifetimes.quiet(day)
    _travel(world, day, rng, settled)
    for customer in _chosen(rng, _MOVES / 365.0, settled & ~world.whereabouts.away(day)):
        world.agenda.add(_move(world, day, rng, customer))
    renamed = _new_phones(world, day, rng, settled)
    for customer in _chosen(rng, _BIG_PURCHASES / 365.0, settled & ~world.whereabouts.away(day)):
        world.agenda.add(_big_purchase(world, day, rng, customer))
    for customer in _chosen(rng, _PASS_THROUGHS / 365.0, settled):
        world.agenda.add(_pass_through(world, day, rng, customer))
    return np.union1d(renamed, _raises(world, day, rng, settled))


def _chosen(rng: np.random.Generator, rate: float, who: Bools) -> list[int]:
    return [int(customer) for customer in np.flatnonzero((rng.random(who.size) < rate) & who)]


def _travel(world: World, day: Day, rng: np.random.Generator, settled: Bools) -> None:
    """Some leave for one or two weeks, most of them abroad."""
    places, merchants = world.whereabouts, world.merchants
    rate = _SEGMENT_TRIPS[world.profiles.segment] / 365.0 * day.travel
    leaving = np.flatnonzero(settled & ~places.away(day) & (rng.random(settled.size) < rate))
    abroad = rng.random(leaving.size) < 0.75
    weights = np.array([city.weight for city in merchants.cities[merchants.home_cities :]])
    far = merchants.home_cities + rng.choice(weights.size, leaving.size, p=weights / weights.sum())
    places.away_city[leaving] = np.where(abroad, far, rng.integers(0, merchants.home_cities, leaving.size))
    places.away_from[leaving] = day.index
    places.away_to[leaving] = day.index + np.clip(rng.poisson(8.0, leaving.size), 3, 21)


def _move(world: World, day: Day, rng: np.random.Generator, customer: int) -> Rows:
    """A new home: other shops, another address, a deposit, and furniture for three weeks."""
    habits, merchants = world.habits, world.merchants
    if rng.random() < 0.45:
        weights = np.array([city.weight for city in merchants.cities[: merchants.home_cities]])
        habits.city[customer] = rng.choice(weights.size, p=weights / weights.sum())
    city = int(habits.city[customer])
    shops = favourite_shops(rng, merchants, world.profiles.segment[[customer]], habits.city[[customer]])[0]
    # Whoever stays in the city keeps some of the old shops.
    stays = bool((merchants.city[habits.local[customer]] == city).mean() > 0.5)
    kept = (rng.random(LOCAL) < _LOCAL_KEPT_SHARE) & stays
    habits.local[customer] = np.where(kept, habits.local[customer], shops)
    habits.home_ip[customer] = home_ips(rng, 1)[0]
    world.whereabouts.moved_on[customer] = day.index

    count = int(rng.integers(4, 11))
    shop = np.array([merchants.of_category(rng, str(rng.choice(_FURNISHING)), city) for _ in range(count)])
    scale = np.full(count, float(habits.spend_scale[customer]) * float(rng.uniform(1.2, 2.6)))
    moment = rng.integers(0, 21, count) * DAY_MS + rng.integers(9 * HOUR_MS, 20 * HOUR_MS, count)
    bought = make_rows(
        customer,
        day.start_ms + moment,
        merchants.amounts(rng, shop, scale),
        np.where(merchants.city[shop] == ONLINE, Kind.ECOMMERCE, Kind.POS),
        merchant=shop,
        device=np.where(merchants.city[shop] == ONLINE, habits.phone[customer], NONE),
        lookalike=lookalike_code("house_move"),
    )
    deposit = _own_transfer(world, day, rng, customer, 0.4 * float(world.profiles.monthly_income[customer]))
    deposit["lookalike"] = lookalike_code("house_move")
    return np.concatenate([bought, deposit])


def _new_phones(world: World, day: Day, rng: np.random.Generator, settled: Bools) -> Ints:
    season = 1.6 if day.date.month in (9, 12) else 0.9
    got = np.array(_chosen(rng, _PHONES / 365.0 * season, settled), np.int64)
    world.habits.phone[got] = world.habits.devices.new(got.size)
    world.whereabouts.phone_since[got] = day.index
    renumbered = got[rng.random(got.size) < _NEW_NUMBER_SHARE]
    world.profiles.phones[renumbered] += 1
    return renumbered


def _big_purchase(world: World, day: Day, rng: np.random.Generator, customer: int) -> Rows:
    """One amount far beyond habit, honestly meant: in a shop, online, or to a new payee."""
    habits, merchants = world.habits, world.merchants
    amount = habits.typical_minor(customer) * float(np.exp(rng.normal(np.log(11.0), 0.6)))
    rich = float(world.ledger.balance[customer] + world.ledger.savings[customer])
    amount = min(amount, 0.7 * max(rich, 0.0))
    if amount < 5_000:
        return NO_ROWS
    needed = amount - 0.9 * float(world.ledger.balance[customer])
    parts = []
    if needed > 0:
        taken = int(min(needed, float(world.ledger.savings[customer])))
        if taken > 0:
            parts.append(_from_savings(world, day, rng, customer, taken))
    if rng.random() < 0.3:
        parts.append(_own_transfer(world, day, rng, customer, amount))
    else:
        shop = merchants.of_category(rng, str(rng.choice(_DEAR)), int(habits.city[customer]))
        online = int(merchants.city[shop]) == ONLINE
        known = online and rng.random() < 0.8
        parts.append(
            make_rows(
                customer,
                day.start_ms + rng.integers(9 * HOUR_MS, (23 if online else 20) * HOUR_MS, 1),
                int(amount),
                Kind.ECOMMERCE if online else Kind.POS,
                merchant=shop,
                device=int(habits.phone[customer]) if known else NONE,
                ip=int(habits.home_ip[customer]) if known else NONE,
            )
        )
    rows = np.concatenate(parts)
    rows["lookalike"] = lookalike_code("big_purchase")
    return rows


def _from_savings(world: World, day: Day, rng: np.random.Generator, customer: int, amount: int) -> Rows:
    """Savings that come back in the morning to pay for something."""
    world.ledger.savings[customer] -= amount
    return make_rows(
        customer,
        day.start_ms + rng.integers(6 * HOUR_MS, 8 * HOUR_MS, 1),
        amount,
        Kind.TRANSFER_IN,
        counterparty=SAVINGS_FIRST + customer,
    )


def _pass_through(world: World, day: Day, rng: np.random.Generator, customer: int) -> Rows:
    """Money that comes and soon goes on: the rent of a shared flat, a collection for a present."""
    amount = float(np.exp(rng.normal(np.log(90_000.0), 0.8)))
    arrived = day.start_ms + int(rng.integers(8 * HOUR_MS, 19 * HOUR_MS))
    came = make_rows(
        customer,
        np.array([arrived]),
        int(amount),
        Kind.TRANSFER_IN,
        counterparty=EXTERNAL_FIRST + rng.integers(0, 60_000_000, 1),
    )
    count = int(rng.integers(1, 4))
    wait = np.cumsum(rng.exponential(9 * 60 * MINUTE_MS, count) + 10 * MINUTE_MS).astype(np.int64)
    known = rng.random() < 0.5
    payee = (
        world.habits.payees[customer][:count]
        if known
        else draw_payees(rng, world.profiles.founders, (count,))
    )
    went = make_rows(
        customer,
        arrived + wait,
        np.maximum(amount * rng.uniform(0.6, 1.0) / count, 500).astype(np.int64),
        Kind.MOBILE_TRANSFER,
        counterparty=payee,
        device=int(world.habits.phone[customer]),
        ip=int(world.habits.home_ip[customer]),
    )
    rows = np.concatenate([came, went])
    rows["lookalike"] = lookalike_code("pass_through")
    return rows


def _own_transfer(world: World, day: Day, rng: np.random.Generator, customer: int, amount: float) -> Rows:
    """A transfer to a new payee, from the customer's own phone, at home."""
    return make_rows(
        customer,
        day.start_ms + rng.integers(8 * HOUR_MS, 22 * HOUR_MS, 1),
        max(int(amount), 1_000),
        Kind.MOBILE_TRANSFER,
        counterparty=draw_payees(rng, world.profiles.founders, (1,)),
        device=int(world.habits.phone[customer]),
        ip=int(world.habits.home_ip[customer]),
    )


def _raises(world: World, day: Day, rng: np.random.Generator, settled: Bools) -> Ints:
    """Incomes that rise, once a month."""
    if day.date.day != 1:
        return np.zeros(0, np.int64)
    earning = settled & (world.profiles.segment != SENIOR)
    raised = np.array(_chosen(rng, _RAISES_A_MONTH, earning), np.int64)
    world.profiles.income[raised] = np.round(
        world.profiles.income[raised] * rng.uniform(1.01, 1.12, raised.size), -2
    )
    return raised
