"""Fraud with an account: taken over, emptied at a stroke, lent to launderers."""

import numpy as np

from generator.draws import Floats, Ints
from generator.habits import EXTERNAL_FIRST
from generator.merchants import CATEGORY
from generator.network import home_ips
from generator.rings import Case
from generator.rows import NONE, Kind, Rows, make_rows
from generator.settings import HOUR_MS, MINUTE_MS

_REMOTE_CONTROL_SHARE = 0.18
_SCAM_SHARE = 0.3


def account_takeover(case: Case) -> Rows:
    """Somebody else logs in: a new device, a new payee, transfers until the account is empty."""
    rng, stealth, habits = case.rng, case.stealth, case.world.habits
    device, ip = int(rng.choice(case.ring.devices)), int(rng.choice(case.ring.ips))
    if rng.random() < _REMOTE_CONTROL_SHARE:
        # The customer is talked into handing over the own device: nothing about it is new.
        device, ip = int(habits.phone[case.customer]), int(habits.home_ip[case.customer])
    elif rng.random() < 0.3 * stealth:
        ip = int(home_ips(rng, 1)[0])
    count = 1 + int(rng.poisson(2.2 * (1.0 - stealth)))
    begin = case.begin(CATEGORY["digital goods"])
    kind = Kind.MOBILE_TRANSFER if rng.random() < 0.7 else Kind.ONLINE_TRANSFER
    left = case.funds_minor
    greed = 0.12 + 0.6 * (1.0 - stealth)
    amounts = []
    for _ in range(count):
        amounts.append(max(left * greed * float(rng.uniform(0.4, 1.2)), 1_000.0))
        left -= amounts[-1]
    amount = np.array(amounts)
    if rng.random() < 0.5:
        amount = np.maximum(np.round(amount, -4), 1_000)
    if count > 1 and rng.random() < 0.35:
        # First of all, does it work?
        amount[0] = rng.integers(100, 2_000)
    payee = rng.choice(case.ring.accounts, count)
    return make_rows(
        case.customer,
        case.after(begin, count, MINUTE_MS * (4.0 + 240.0 * stealth)),
        amount.astype(np.int64),
        kind,
        counterparty=payee,
        device=device,
        ip=ip,
    )


def large_amount(case: Case) -> Rows:
    """One amount far beyond habit: an order with a copied card, or a transfer by a tricked customer."""
    rng, stealth, merchants = case.rng, case.stealth, case.world.merchants
    amount = case.typical_minor * float(np.exp(rng.normal(np.log(22.0 - 12.0 * stealth), 0.45)))
    amount = min(amount, 0.85 * case.funds_minor)
    if rng.random() < _SCAM_SHARE:
        return make_rows(
            case.customer,
            np.array([case.begin(CATEGORY["digital goods"])]),
            int(max(amount * 1.5, 5_000)),
            Kind.MOBILE_TRANSFER,
            counterparty=int(rng.choice(case.ring.accounts)),
            device=int(case.world.habits.phone[case.customer]),
            ip=int(case.world.habits.home_ip[case.customer]),
        )
    trade = str(
        rng.choice(["electronics", "jewellery", "airline", "furniture", "virtual currency", "gift cards"])
    )
    abroad = rng.random() < 0.4 * (1.0 - stealth)
    near = int(case.world.habits.city[case.customer])
    city = int(rng.integers(len(merchants.cities))) if abroad else near
    shop = merchants.of_category(rng, trade, city)
    swiped = int(merchants.city[shop]) >= 0
    device, ip = (NONE, NONE) if swiped else case.tools(0.6)
    return make_rows(
        case.customer,
        np.array([case.begin(int(merchants.category[shop]))]),
        int(max(amount, 4_000)),
        Kind.POS if swiped else Kind.ECOMMERCE,
        merchant=shop,
        device=device,
        ip=ip,
    )


def mule_chain(case: Case, helpers: list[int]) -> Rows:
    """Stolen money passes through several accounts: it comes, and goes on in parts within hours.

    Args:
        case: The first mule.
        helpers: The customers it goes on to, and who pass it out of the bank.
    """
    rng, stealth = case.rng, case.stealth
    amount = float(np.exp(rng.normal(np.log(240_000.0 - 130_000.0 * stealth), 0.6)))
    arrived = case.begin(CATEGORY["digital goods"])
    source = EXTERNAL_FIRST + int(rng.integers(0, 60_000_000))
    parts = [
        make_rows(case.customer, np.array([arrived]), int(amount), Kind.TRANSFER_IN, counterparty=source)
    ]
    share = rng.dirichlet(np.full(len(helpers), 6.0)) * amount * float(rng.uniform(0.88, 0.98))
    moment = case.after(arrived + _delay(case), len(helpers), 8 * MINUTE_MS)
    parts.append(_own_transfers(case, case.customer, moment, share, np.array(helpers)))
    for helper, part, sent in zip(helpers, share.tolist(), moment.tolist(), strict=True):
        kept = part * float(rng.uniform(0.90, 0.98))
        begin = sent + _delay(case)
        if rng.random() < 0.35:
            parts.append(_cash(case, helper, begin, kept))
        else:
            count = int(rng.integers(1, 4))
            pieces = rng.dirichlet(np.full(count, 5.0)) * kept
            out = rng.choice(case.ring.accounts, count)
            parts.append(_own_transfers(case, helper, case.after(begin, count, 15 * MINUTE_MS), pieces, out))
    return np.concatenate(parts)


def _delay(case: Case) -> int:
    """How long the money rests, in milliseconds: minutes, or most of a day."""
    return 2 * MINUTE_MS + int(case.rng.exponential(25 * MINUTE_MS + 8 * HOUR_MS * case.stealth))


def _own_transfers(case: Case, customer: int, moment: Ints, amount: Floats, payee: Ints) -> Rows:
    """Transfers a mule makes from the own phone."""
    return make_rows(
        customer,
        moment,
        np.maximum(amount, 500).astype(np.int64),
        Kind.MOBILE_TRANSFER,
        counterparty=payee,
        device=int(case.world.habits.phone[customer]),
        ip=int(case.world.habits.home_ip[customer]),
    )


def _cash(case: Case, customer: int, begin_ms: int, amount: float) -> Rows:
    """Withdrawals of a few hundred each until little is left."""
    count = int(min(max(amount // 50_000, 1), 4))
    city = int(case.world.city_of(case.day)[customer])
    return make_rows(
        customer,
        case.after(begin_ms, count, 4 * MINUTE_MS),
        int(max(min(amount / count, 50_000) // 1_000 * 1_000, 2_000)),
        Kind.CASH_MACHINE,
        merchant=case.world.merchants.cash_machines.draw(case.rng, np.full(count, city)),
    )
