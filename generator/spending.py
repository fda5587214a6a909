"""A day of card payments, cash and transfers between people."""

import numpy as np

from generator.draws import Bools, Floats, Ints, Stream, choose
from generator.events import lookalike_code
from generator.habits import EXTERNAL_FIRST, PAYEES, draw_payees, favourite
from generator.merchants import CATEGORY
from generator.network import guest_ips, hosted_ips
from generator.profiles import by_segment
from generator.rhythm import Day, time_of_day
from generator.rows import NONE, Kind, Rows, make_rows
from generator.settings import DAY_MS, MINUTE_MS
from generator.world import World

_DAY_TRIP_SHARE = 0.012
_NEW_HOME_DAYS, _NEW_PHONE_DAYS = 10, 4
_REFUND_SHARE = 0.025
# Issuers do not learn the device of every order.
_DEVICE_KNOWN = 0.7

_NOTES = (20, 30, 40, 50, 60, 80, 100, 150, 200, 300)
_NOTES_SHARE = (0.2, 0.1, 0.14, 0.16, 0.1, 0.1, 0.1, 0.04, 0.04, 0.02)

_HOLIDAY, _MOVE = lookalike_code("holiday"), lookalike_code("house_move")
_CHRISTMAS, _PHONE = lookalike_code("christmas"), lookalike_code("new_phone")


def spending(world: World, day: Day) -> Rows:
    """What customers spend on a day because they want to; refunds go to the agenda."""
    rng = world.random(Stream.SPENDING, day)
    ease = world.ledger.ease(world.profiles.monthly_income)
    will = world.lifetimes.activity(day) * np.sqrt(ease)
    away = world.whereabouts.away(day)
    bought = _purchases(world, day, rng, will * np.where(away, 1.35, 1.0), ease, away)
    parts = [bought, _withdrawals(world, day, rng, will * np.where(away, 1.8, 1.0), away)]
    if day.christmas:
        parts.append(_presents(world, day, rng, will * ~away * day.christmas, ease))
    parts.append(_transfers(world, day, rng, will))
    world.agenda.add(_refunds(world, rng, bought))
    return np.concatenate(parts)


def _purchases(
    world: World, day: Day, rng: np.random.Generator, will: Floats, ease: Floats, away: Bools
) -> Rows:
    habits, merchants = world.habits, world.merchants
    love = 1.0 + habits.weekend * (1.0 if day.weekend else -0.4)
    counts = rng.poisson(habits.purchases * will * day.spending * np.maximum(love, 0.2))
    who = np.repeat(np.arange(counts.size), counts)
    m = who.size
    # A day somewhere else: all of it, for nobody shops in two cities at once.
    trip = (rng.random(counts.size) < _DAY_TRIP_SHARE) & ~away
    elsewhere = rng.integers(0, merchants.home_cities, counts.size)
    city = np.where(trip, elsewhere, world.city_of(day))
    strange = trip | away

    online = rng.random(m) < habits.online_share[who] * np.where(away[who], 0.5, 1.0)
    new = rng.random(m) < habits.novelty[who]
    merchant = favourite(rng, habits.local, habits.local_cumulative, who)
    explored = new | strange[who]
    merchant[explored] = merchants.shops.draw(rng, city[who[explored]])
    merchant[online] = favourite(rng, habits.favourite_online, habits.online_cumulative, who[online])
    found = np.flatnonzero(online & new)
    merchant[found] = merchants.online.draw(rng, np.zeros(found.size, np.int64))

    shift = habits.shift_h[who] + np.where(away[who], 1.0, 0.0)
    moment = time_of_day(rng, merchants.hours, merchants.category[merchant], shift)
    # Travellers pay for tables and rooms, not for the weekly shopping.
    scale = world.payment_scale(who, ease) * np.where(away[who], rng.uniform(0.9, 2.0, m), 1.0)
    moved = day.index - world.whereabouts.moved_on[who] < _NEW_HOME_DAYS
    rows = make_rows(
        who,
        day.start_ms + moment,
        merchants.amounts(rng, merchant, scale),
        np.where(online, Kind.ECOMMERCE, Kind.POS),
        merchant=merchant,
        lookalike=np.where(away[who], _HOLIDAY, np.where(moved & ~online, _MOVE, 0)),
    )
    _reach(world, rng, day, rows, np.flatnonzero(online), _DEVICE_KNOWN)
    return rows


def _reach(world: World, rng: np.random.Generator, day: Day, rows: Rows, online: Ints, known: float) -> None:
    """Fill in the device and the address of what was done online."""
    habits, who = world.habits, rows["customer"][online]
    m = online.size
    at_desk = (rng.random(m) < 0.4) & (habits.desk[who] != NONE) & ~world.whereabouts.away(day)[who]
    device = np.where(at_desk, habits.desk[who], habits.phone[who])
    rows["device"][online] = np.where(rng.random(m) < known, device, NONE)
    way = choose(rng, np.broadcast_to(np.array([0.60, 0.93, 0.97, 1.0]), (m, 4)))
    way = np.where(at_desk & (way == 1), 0, way)
    way = np.where(world.whereabouts.away(day)[who] & (way == 0), 2, way)
    addresses = np.stack(
        [habits.home_ip[who], habits.carrier.ips(rng, m), guest_ips(rng, m), hosted_ips(rng, m)]
    )
    rows["ip"][online] = np.where(rng.random(m) < known + 0.2, addresses[way, np.arange(m)], NONE)
    fresh = ~at_desk & (day.index - world.whereabouts.phone_since[who] < _NEW_PHONE_DAYS)
    rows["lookalike"][online] = np.where(
        fresh & (rows["lookalike"][online] == 0), _PHONE, rows["lookalike"][online]
    )


def _withdrawals(world: World, day: Day, rng: np.random.Generator, will: Floats, away: Bools) -> Rows:
    counts = rng.poisson(world.habits.cash * will)
    who = np.repeat(np.arange(counts.size), counts)
    machine = world.merchants.cash_machines.draw(rng, world.city_of(day)[who])
    # The same corner every week, another one for every customer.
    usual = ~away[who] & (rng.random(who.size) < 0.7)
    mine = who * 7
    for city in range(world.merchants.home_cities):
        near = world.merchants.cash_machines.members(city)
        here = usual & (world.habits.city[who] == city)
        machine[here] = near[mine[here] % near.size]
    notes = rng.choice(_NOTES, who.size, p=_NOTES_SHARE)
    moment = time_of_day(
        rng, world.merchants.hours, world.merchants.category[machine], world.habits.shift_h[who]
    )
    return make_rows(
        who,
        day.start_ms + moment,
        notes * 100,
        Kind.CASH_MACHINE,
        merchant=machine,
        lookalike=np.where(away[who], _HOLIDAY, 0),
    )


def _presents(world: World, day: Day, rng: np.random.Generator, will: Floats, ease: Floats) -> Rows:
    """Christmas shopping: dearer, and at merchants one does not know."""
    habits, merchants = world.habits, world.merchants
    counts = rng.poisson(0.42 * habits.purchases * will * day.spending)
    who = np.repeat(np.arange(counts.size), counts)
    online = rng.random(who.size) < np.minimum(habits.online_share[who] * 1.6, 0.8)
    merchant = merchants.shops.draw(rng, habits.city[who])
    merchant[online] = merchants.online.draw(rng, np.zeros(int(online.sum()), np.int64))
    moment = time_of_day(rng, merchants.hours, merchants.category[merchant], habits.shift_h[who])
    scale = world.payment_scale(who, ease) * rng.uniform(1.1, 2.4, who.size)
    rows = make_rows(
        who,
        day.start_ms + moment,
        merchants.amounts(rng, merchant, scale),
        np.where(online, Kind.ECOMMERCE, Kind.POS),
        merchant=merchant,
        lookalike=_CHRISTMAS,
    )
    _reach(world, rng, day, rows, np.flatnonzero(online), _DEVICE_KNOWN)
    return rows


def _transfers(world: World, day: Day, rng: np.random.Generator, will: Floats) -> Rows:
    """Transfers to people, most of them to the same few."""
    habits, n = world.habits, world.settings.customers
    counts = rng.poisson(habits.transfers * will)
    who = np.repeat(np.arange(n), counts)
    m = who.size
    rank = np.minimum(rng.geometric(0.4, m) - 1, PAYEES - 1)
    new = rng.random(m) < 0.12
    # One payee in two paid for the first time stays among the known.
    fresh = draw_payees(rng, world.profiles.founders, (m,))
    kept = np.flatnonzero(new & (rng.random(m) < 0.5))
    habits.payees[who[kept], rng.integers(0, PAYEES, kept.size)] = fresh[kept]
    payee = np.where(new, fresh, habits.payees[who, rank])
    payee = np.where(payee == who, EXTERNAL_FIRST + who, payee)
    amount = np.exp(np.log(5_500.0) + 1.0 * rng.standard_normal(m)) * world.habits.spend_scale[who] ** 0.7
    amount = np.where(rng.random(m) < 0.7, np.ceil(amount / 500.0) * 500.0, amount)
    at_branch = rng.random(m) < by_segment("branch")[world.profiles.segment[who]]
    moment = time_of_day(
        rng, world.merchants.hours, np.full(m, CATEGORY["digital goods"]), habits.shift_h[who]
    )
    moment = np.where(at_branch, moment % (8 * 60 * MINUTE_MS) + 9 * 60 * MINUTE_MS, moment)
    sent = make_rows(
        who,
        day.start_ms + moment,
        np.maximum(amount, 200).astype(np.int64),
        np.where(at_branch, Kind.BRANCH_TRANSFER, Kind.MOBILE_TRANSFER),
        counterparty=payee,
    )
    _reach(world, rng, day, sent, np.flatnonzero(~at_branch), 0.97)
    at_desk = (sent["device"] != NONE) & (sent["device"] == habits.desk[who])
    sent["kind"][at_desk] = Kind.ONLINE_TRANSFER
    return sent


def _refunds(world: World, rng: np.random.Generator, bought: Rows) -> Rows:
    """Some of what was bought today comes back within two weeks, in full or in part."""
    back: Rows = bought[
        (rng.random(bought.size) < _REFUND_SHARE)
        & ((bought["kind"] == Kind.ECOMMERCE) | (bought["amount_minor"] > 4_000))
    ]
    part = np.where(rng.random(back.size) < 0.7, 1.0, rng.uniform(0.2, 0.9, back.size))
    return make_rows(
        back["customer"].astype(np.int64),
        back["time_ms"] + rng.integers(DAY_MS, 14 * DAY_MS, back.size),
        np.maximum(back["amount_minor"] * part, 50).astype(np.int64),
        Kind.REFUND,
        merchant=back["merchant"].astype(np.int64),
    )
