"""The part of the kernel that goes through long windows: column by column, not record by record.

A loop that keeps thirty statistics of each record holds them in memory, not in registers. Here the
fields that a window's statistics need are copied into columns, some hundred transactions at a time,
and a small loop for each group goes over them, which LLVM turns into vector instructions. What only
asks for the newest or the oldest matching event is a search that ends where it finds it. All sums are
of integers, so neither the order nor where a part ends changes a bit.
"""

from collections.abc import Callable

import numpy as np

from features.definitions import CLOCK_FIELDS
from features.plan import OF_AMOUNTS, Group, Plan, column_of, condition, event_columns, indent, ordered
from features.record import RECORD

Choice = Callable[[str, str], str]

TILE = 256
"""Transactions at a time: their records and columns fit into a processor's first cache."""

COLUMNS = np.dtype(
    [
        (name, RECORD[name], TILE)
        for name in (
            "amount_minor",
            "merchant",
            "device",
            "counterparty",
            "country",
            "currency",
            "category",
            "transaction_type",
            "channel",
            "credit",
            "card_present",
        )
    ]
    + [(name, np.uint8, TILE) for name in CLOCK_FIELDS]
)
"""Scratch memory of a kernel, one element: a column of each field that something may be counted by."""
_NAMES = COLUMNS.names or ()
_PASSED = "pool begin i none low currency event values stamp vectors columns".split()


def columns_function(plan: Plan, number: int) -> list[str]:
    """A function that adds all events up to a window's edge: from `i` down to `low`.

    One for each edge, not one for all: numba's time to compile grows with the square of a function's length.
    """
    edge_ms = plan.edges[number]
    groups, vectors = plan.live(edge_ms)
    compared = event_columns([*(group for group, _ in groups), *vectors])
    sets = {
        number
        for group, live in groups
        for name, number in group.distinct.items()
        if f"distinct_{name}" in live
    }
    prologue = [
        *(f"event_{name} = event.{name}" for name in compared),
        *(f"values{which} = values[{which}]" for which in sorted(sets)),
        *(f"vector{group.number} = vectors[{group.number}]" for group in vectors),
        *(f"column_{name} = columns[0].{name}" for name in _columns_of(plan, edge_ms)),
    ]
    state = _state(plan, edge_ms)
    return [
        "@numba.njit(cache=True)",
        f"def add_columns_{number}({', '.join([*_PASSED, *state])}):",
        *indent(1, prologue),
        *indent(1, _loop(plan, edge_ms)),
        f"    return {', '.join(['i', *state])}",
    ]


def columns_call(plan: Plan, number: int) -> str:
    """The statement that calls it."""
    state = _state(plan, plan.edges[number])
    return f"{', '.join(['i', *state])} = add_columns_{number}({', '.join([*_PASSED, *state])})"


def _state(plan: Plan, edge_ms: int) -> list[str]:
    """Variables that events up to an edge change."""
    names: list[str] = []
    for group, live in plan.live(edge_ms)[0]:
        for need in sorted(live):
            if need == "squares":
                names += map(group.var, ("shift", "low", "mid", "high"))
            else:
                names.append(group.var(need.replace("distinct_", "d_")))
    return names


def _loop(plan: Plan, edge_ms: int) -> list[str]:
    groups, vectors = plan.live(edge_ms)
    lines = [
        "full = True",
        "while full:",
        "    top = i",
        "    n = np.uint64(0)",
        "    while i > begin and pool[i - ONE].time_ms >= low and n < TILE:",
        "        i -= ONE",
        "        r = pool[i]",
    ]
    for name in _columns_of(plan, edge_ms):
        value = f"{name}_utc(r.time_ms)" if name in CLOCK_FIELDS else f"r.{name}"
        lines.append(f"        column_{name}[n] = {value}")
    lines += [
        # Not a branch: what is no transaction is overwritten by the next record.
        "        n += np.uint64(r.kind == 0)",
        "    full = n == TILE",
    ]
    for group, live in groups:
        lines += indent(1, _searches(group, live))
    for group, live in groups:
        lines += indent(1, _sums(group, live))
    for group in vectors:
        mask = _mask(group)
        amount = "np.float64(column_amount_minor[k])"
        added = f"{amount} if {mask} else 0.0" if mask else amount
        lines += ["    for k in range(n):", f"        vector{group.number}[column_category[k]] += {added}"]
    return lines


def _columns_of(plan: Plan, edge_ms: int) -> list[str]:
    groups, vectors = plan.live(edge_ms)
    used: set[str] = set()
    for group, live in groups:
        summed = live - {"newest", "oldest", "position"}
        used |= {need.split("_", 1)[1] for need in summed if "_" in need}
        if summed & OF_AMOUNTS:
            used.add("amount_minor")
        if summed:
            used |= _compared(group)
    for group in vectors:
        used |= {"amount_minor", "category"} | _compared(group)
    return [name for name in _NAMES if name in used]


def _compared(group: Group) -> set[str]:
    of_amount = {"currency"} if any(where.field == "amount" for where in group.where) else set()
    return {column_of(where.field) for where in group.where} | of_amount


def _mask(group: Group) -> str:
    return " & ".join(
        f"({condition(where, lambda column: f'column_{column}[k]')})" for where in ordered(group.where)
    )


def _searches(group: Group, live: set[str]) -> list[str]:
    """Looking for the newest, the oldest or the newest with a position, each where it is not known."""
    clocks = sorted({w.field for w in group.where} & set(CLOCK_FIELDS))
    tests = ["(r.kind == 0)"] + [
        f"({condition(where, lambda column: column if column in CLOCK_FIELDS else f'r.{column}')})"
        for where in ordered(group.where)
    ]
    read = ["r = pool[j]", *(f"{clock} = {clock}_utc(r.time_ms)" for clock in clocks)]

    def backwards(name: str, *more: str) -> list[str]:
        with_shift = name == "newest" and "squares" in live
        return [
            f"if {group.var(name)} == none:",
            "    j = top",
            "    while j > i:",
            "        j -= ONE",
            *indent(2, read),
            f"        if {' & '.join([*tests, *more])}:",
            f"            {group.var(name)} = j",
            *([f"            {group.var('shift')} = r.amount_minor"] if with_shift else []),
            "            break",
        ]

    lines: list[str] = []
    if "newest" in live:
        lines += backwards("newest")
    if "position" in live:
        lines += backwards("position", "(not math.isnan(r.latitude))")
    if "oldest" in live:
        lines += [
            "j = i",
            "while j < top:",
            *indent(1, read),
            f"    if {' & '.join(tests)}:",
            f"        {group.var('oldest')} = j",
            "        break",
            "    j += ONE",
        ]
    return lines


def _sums(group: Group, live: set[str]) -> list[str]:
    v, mask = group.var, _mask(group)
    amount = "a = column_amount_minor[k]"
    lines: list[str] = []
    body: list[str] = []

    def where(value: str, other: str) -> str:
        return f"{value} if m else {other}" if mask else value

    if "n" in live:
        if mask:
            body.append(f"{v('n')} += m")
        else:
            lines.append(f"{v('n')} += np.int64(n)")
    if live & OF_AMOUNTS:
        body.append(amount)
    body += amount_updates(group, live, where)
    for need in sorted(live):
        if need.startswith("bits_"):
            bit = f"ONE << np.uint64(column_{need.removeprefix('bits_')}[k])"
            body.append(f"{v(need)} |= {where(bit, 'ZERO')}")
    start = ["for k in range(n):", *([f"    m = {mask}"] if mask else [])]
    if "squares" in live:
        lines += ["bits = ZERO", *start, *indent(1, [*body, "bits |= d"])]
        rest = [amount, difference(group, where), *high_updates(group)]
        lines += ["if bits > LOW:", *indent(1, start), *indent(2, rest)]
    elif body:
        lines += [*start, *indent(1, body)]
    for name, number in group.distinct.items():
        if f"distinct_{name}" in live:
            value = f"column_{name}[k]"
            lines += [
                "for k in range(n):",
                f"    if {value} != 0{f' and ({mask})' if mask else ''}:",
                f"        {v('d_' + name)} += add_distinct(values{number}, stamp, {value})",
            ]
    return lines


def amount_updates(group: Group, live: set[str], where: Choice) -> list[str]:
    """What an amount `a` adds to a group's sums, smallest and largest.

    `where` gives the expression for one value where the group's conditions are met, and another where not.
    """
    v = group.var
    lines: list[str] = []
    if "sum" in live:
        lines.append(f"{v('sum')} += {where('np.uint64(a)', 'ZERO')}")
    if "min" in live:
        lines.append(f"{v('min')} = min({v('min')}, {where('a', 'FAR')})")
    if "max" in live:
        lines.append(f"{v('max')} = max({v('max')}, {where('a', 'NONE')})")
    if "squares" in live:
        lines += [difference(group, where), f"{v('low')} += (d & LOW) * (d & LOW)"]
    return lines


def difference(group: Group, where: Choice) -> str:
    """Difference `d` of an amount `a` from the group's newest, without sign; 0 where conditions fail."""
    distance = f"np.uint64(abs(a - {group.var('shift')}))"
    return f"d = {where(distance, 'ZERO')}"


def high_updates(group: Group) -> list[str]:
    """What a large difference `d` adds besides: hardly any is, so most events are spared it."""
    return [
        f"{group.var('mid')} += (d & LOW) * (d >> BITS)",
        f"{group.var('high')} += (d >> BITS) * (d >> BITS)",
    ]
