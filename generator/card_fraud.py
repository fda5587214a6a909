"""Fraud with a card: tested in bulk, stolen from a pocket, copied at a merchant."""

import numpy as np

from generator.draws import Ints
from generator.merchants import CATEGORY
from generator.rings import Case, resold
from generator.rows import NONE, Kind, Rows, make_rows
from generator.settings import DAY_MS, HOUR_MS, MINUTE_MS

_DEVICE_KNOWN = 0.6
_CONTACTLESS_LIMIT = 5_000


def card_testing(case: Case) -> Rows:
    """Tiny amounts at several online shops within minutes, then larger ones if the card works."""
    rng, stealth = case.rng, case.stealth
    tests = 2 + int(rng.poisson(7.0 * (1.0 - stealth) ** 1.5))
    begin = case.begin(CATEGORY["online marketplace"])
    pause = MINUTE_MS * (0.6 + 30.0 * stealth**2)
    tested = case.after(begin, tests, pause)
    device, ip = case.tools(_DEVICE_KNOWN)
    small = np.exp(rng.normal(np.log(110.0 + 700.0 * stealth), 0.6, tests))
    parts = [
        make_rows(
            case.customer,
            tested,
            np.maximum(small, 50).astype(np.int64),
            Kind.ECOMMERCE,
            merchant=case.world.merchants.online.draw(rng, np.zeros(tests, np.int64)),
            device=device,
            ip=ip,
        )
    ]
    if rng.random() < 0.85:
        first = int(tested[-1]) + int(rng.exponential(4 * HOUR_MS)) + MINUTE_MS
        parts.append(orders(case, first, 1 + int(rng.poisson(1.8)), 45 * MINUTE_MS))
    return np.concatenate(parts)


def stolen_card(case: Case) -> Rows:
    """The card itself in other hands: shops and cash, in town, in another one or abroad."""
    rng, stealth, merchants = case.rng, case.stealth, case.world.merchants
    home = int(case.world.city_of(case.day)[case.customer])
    if rng.random() < 0.25 + 0.4 * stealth:
        city = home
    elif rng.random() < 0.5:
        city = int(rng.integers(merchants.home_cities))
    else:
        city = int(rng.integers(merchants.home_cities, len(merchants.cities)))
    count = 1 + int(rng.poisson(1.0 + 3.5 * (1.0 - stealth)))
    begin = case.begin(CATEGORY["clothing"])
    moment = case.after(begin, count, MINUTE_MS * (12.0 + 60.0 * stealth))
    drawn = merchants.shops.draw(rng, np.full((3, count), city))
    liking = merchants.resale[drawn] + rng.random((3, count)) * (0.2 + 1.5 * stealth)
    shop = drawn[np.argmax(liking, axis=0), np.arange(count)]
    scale = float(case.world.habits.spend_scale[case.customer]) * rng.uniform(
        0.9, 1.3 + 2.7 * (1.0 - stealth), count
    )
    amount = merchants.amounts(rng, shop, scale)
    if stealth > 0.6 and rng.random() < 0.6:
        # Without the number of the card only contactless payments work.
        amount = np.where(
            amount >= _CONTACTLESS_LIMIT, rng.integers(1_500, _CONTACTLESS_LIMIT, count), amount
        )
    parts = [make_rows(case.customer, moment, amount, Kind.POS, merchant=shop)]
    if rng.random() < 0.4:
        cash = 1 + int(rng.random() < 0.4)
        parts.append(
            make_rows(
                case.customer,
                case.after(begin + int(rng.exponential(20 * MINUTE_MS)) + MINUTE_MS, cash, 5 * MINUTE_MS),
                rng.choice([10_000, 20_000, 30_000, 40_000, 50_000], cash),
                Kind.CASH_MACHINE,
                merchant=merchants.cash_machines.draw(rng, np.full(cash, city)),
            )
        )
    return np.concatenate(parts)


def misuse(case: Case, cash_out: Ints) -> Rows:
    """A card copied at a compromised merchant: orders, most of them where the ring cashes out.

    Args:
        case: The victim; its ring is the one that owns the copies.
        cash_out: Merchants the ring uses; the compromised one itself if it is an accomplice.
    """
    rng, stealth, merchants = case.rng, case.stealth, case.world.merchants
    count = 1 + int(rng.poisson(0.6 + 1.8 * (1.0 - stealth)))
    begin = case.begin(CATEGORY["online marketplace"])
    rows = orders(case, begin, count, MINUTE_MS * (20.0 + 400.0 * stealth))
    there = rng.random(count) < 0.65
    rows["merchant"][there] = rng.choice(cash_out, int(there.sum()))
    # A copied stripe is swiped, a copied number is typed in.
    swiped = merchants.city[rows["merchant"]] >= 0
    rows["kind"] = np.where(swiped, Kind.POS, Kind.ECOMMERCE)
    rows["device"] = np.where(swiped, NONE, rows["device"])
    rows["ip"] = np.where(swiped, NONE, rows["ip"])
    return rows


def charged_again(case: Case, merchant: int) -> Rows:
    """A card that was just used at a terminal in wrong hands: it is charged there again, as others are.

    Args:
        case: The victim.
        merchant: Whose terminal it is.
    """
    rng, merchants = case.rng, case.world.merchants
    count = 1 + int(rng.poisson(0.6))
    where = np.full(count, merchant)
    scale = np.full(count, case.typical_minor / 2_200.0) * rng.uniform(0.8, 1.6, count)
    return make_rows(
        case.customer,
        case.after(case.begin(int(merchants.category[merchant])), count, DAY_MS / 6),
        np.maximum(merchants.amounts(rng, where, scale), 100),
        Kind.POS,
        merchant=where,
    )


def orders(case: Case, begin_ms: int, count: int, mean_gap_ms: float) -> Rows:
    """Orders online that turn into money; the stealthier, the more like the victim's own."""
    rng, stealth = case.rng, case.stealth
    shop = resold(case.world, rng, count, stealth)
    own = rng.random(count) < 0.4 * (1.0 - stealth)
    shop[own] = rng.choice(case.ring.shops, int(own.sum()))
    usual = case.world.merchants.amounts(rng, shop, np.full(count, case.typical_minor / 2_200.0))
    greedy = case.typical_minor * np.exp(rng.normal(np.log(5.5), 0.7, count))
    amount = np.where(rng.random(count) < 0.15 + 0.55 * stealth, usual * rng.uniform(0.9, 2.0, count), greedy)
    amount = np.minimum(amount, max(0.6 * case.funds_minor, 1_000.0))
    device, ip = case.tools(_DEVICE_KNOWN)
    return make_rows(
        case.customer,
        case.after(begin_ms, count, mean_gap_ms),
        np.maximum(amount, 100).astype(np.int64),
        Kind.ECOMMERCE,
        merchant=shop,
        device=device,
        ip=ip,
    )


def card_rows(rows: Rows) -> Rows:
    """Genuine payments at shops among rows: what a compromised merchant can copy."""
    genuine: Rows = rows[
        (rows["typology"] == 0) & (rows["merchant"] != NONE) & (rows["kind"] != Kind.CASH_MACHINE)
    ]
    return genuine
