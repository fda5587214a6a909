"""The part of the kernel that goes through long windows: column by column, not record by record.

A loop that keeps thirty statistics of each record holds them in memory, not in registers. Here the
fields that a window's statistics need are copied into columns, some hundred transactions at a time,
and a small loop for each group goes over them, which LLVM turns into vector instructions. What only
asks for the newest or the oldest matching event is a search that ends where it finds it. All sums are
of integers, so neither the order nor where a part ends changes a bit.
"""

from collections.abc import Callable, Sequence

import numpy as np

from features.definitions import CLOCK_FIELDS, Where
from features.plan import (
    OF_AMOUNTS,
    Group,
    Plan,
    column_of,
    condition,
    event_columns,
    indent,
    ordered,
    value_of,
)
from features.record import RECORD

Choice = Callable[[str, str], str]

TILE = 256
"""Transactions at a time: their records and columns fit into a processor's first cache."""

PACKED = {
    "currency": (0, 0xFFFF),
    "category": (16, 0xFF),
    "transaction_type": (24, 0xFF),
    "channel": (32, 0xFF),
    "credit": (40, 0xFF),
    "card_present": (48, 0xFF),
}
"""Where these fields stand in the column `codes` (`kernels.packed_codes`): lowest bit, and a mask.

A group's conditions on them are one comparison then, and copying them one store: stores are what filling
columns costs.
"""

COLUMNS = np.dtype(
    [(name, RECORD[name], TILE) for name in ("time_ms", "amount_minor", "merchant", "device", "counterparty")]
    + [
        ("country", RECORD["country"], TILE),
        ("codes", np.uint64, TILE),
        ("hours", np.uint32, TILE),
        ("changes", np.uint32, TILE),
    ]
    + [(name, np.uint8, TILE) for name in CLOCK_FIELDS]
)
"""Scratch memory of a kernel, one element: a column of each field that something may be counted by.

`changes` holds the values of such a column that are not those of the transaction before.
"""
_NAMES = COLUMNS.names or ()
_PASSED = "pool begin i away none low currency event values stamp vectors columns".split()


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
        *_set_wanted([*(group for group, _ in groups), *vectors]),
    ]
    state = _state(plan, edge_ms)
    return [
        "@numba.njit(**INNER)",
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
        "        prefetch(pool, np.int64(i) + away)",
    ]
    names = _columns_of(plan, edge_ms)
    clocks = [name for name in names if name in CLOCK_FIELDS]
    for name in names:
        if name not in {*clocks, "hours", "changes"}:
            value = "packed_codes(r)" if name == "codes" else f"r.{name}"
            lines.append(f"        column_{name}[n] = {value}")
    lines += [
        # Not a branch: what is no transaction is overwritten by the next record.
        "        n += np.uint64(r.kind == 0)",
        "    full = n == TILE",
    ]
    if clocks:
        lines += ["    for k in range(n):", "        column_hours[k] = hours_at(column_time_ms[k])"]
    for name in clocks:
        lines += ["    for k in range(n):", f"        column_{name}[k] = {name}_of(column_hours[k])"]
    for group, live in groups:
        lines += indent(1, _searches(group, live))
    for group, live in groups:
        lines += indent(1, _sums(group, live))
    for group in vectors:
        mask = _mask(group)
        amount = "np.float64(column_amount_minor[k])"
        added = f"{amount} if {mask} else 0.0" if mask else amount
        lines += ["    for k in range(n):", f"        vector{group.number}[{_of('category')}] += {added}"]
    return lines


def _columns_of(plan: Plan, edge_ms: int) -> list[str]:
    groups, vectors = plan.live(edge_ms)
    used: set[str] = set()
    for group, live in groups:
        summed = live - {"newest", "oldest", "position"}
        used |= {need.split("_", 1)[1] for need in summed if "_" in need}
        if any(need.startswith("distinct_") for need in summed):
            used.add("changes")
        if summed & OF_AMOUNTS:
            used.add("amount_minor")
        if summed:
            used |= _compared(group)
    for group in vectors:
        used |= {"amount_minor", "category"} | _compared(group)
    if used & set(CLOCK_FIELDS):
        used |= {"time_ms", "hours"}
    if used & set(PACKED):
        used.add("codes")
    return [name for name in _NAMES if name in used]


def _compared(group: Group) -> set[str]:
    of_amount = {"currency"} if any(where.field == "amount" for where in group.where) else set()
    return {column_of(where.field) for where in group.where} | of_amount


def _of(column: str) -> str:
    """A transaction's value of a field."""
    if column not in PACKED:
        return f"column_{column}[k]"
    lowest, mask = PACKED[column]
    return f"(column_codes[k] >> np.uint64({lowest}) & np.uint64({mask}))"


def _packed(group: Group) -> dict[str, Where]:
    """Conditions that are compared together, by their field."""
    equal = [where for where in ordered(group.where) if where.op == "=="]
    return {column_of(where.field): where for where in equal if column_of(where.field) in PACKED}


def _wanted(packed: dict[str, Where]) -> str:
    """Name of the variable with the codes that meet these conditions."""
    return "_".join(["codes", *(f"{column}_{value_of(where)}" for column, where in packed.items())])


def _set_wanted(groups: Sequence[Group]) -> list[str]:
    """Statements that set these variables, each once."""
    lines: dict[str, None] = {}
    for packed in filter(None, map(_packed, groups)):
        values = (
            f"np.uint64({value_of(where)}) << np.uint64({PACKED[column][0]})"
            for column, where in packed.items()
        )
        lines[f"{_wanted(packed)} = {' | '.join(values)}"] = None
    return list(lines)


def _mask(group: Group) -> str:
    packed = _packed(group)
    rest = [where for where in ordered(group.where) if where not in packed.values()]
    tests = [f"({condition(where, _of)})" for where in rest]
    if packed:
        bits = sum(PACKED[column][1] << PACKED[column][0] for column in packed)
        tests.insert(0, f"(column_codes[k] & np.uint64({bits:#x}) == {_wanted(packed)})")
    return " & ".join(tests)


def _searches(group: Group, live: set[str]) -> list[str]:
    """Looking for the newest, the oldest or the newest with a position, each where it is not known."""
    clocks = sorted({w.field for w in group.where} & set(CLOCK_FIELDS))
    tests = ["(r.kind == 0)"] + [
        f"({condition(where, lambda column: column if column in CLOCK_FIELDS else f'r.{column}')})"
        for where in ordered(group.where)
    ]
    read = ["r = pool[j]", *(f"{clock} = {clock}_at(r.time_ms)" for clock in clocks)]

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
            bit = f"ONE << np.uint64({_of(need.removeprefix('bits_'))})"
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
            lines += [
                # Many a customer has the same device and country again and again: what repeats the one
                # before is left out first. Without branches: which these are cannot be predicted.
                "last, changed = np.uint32(0), ZERO",
                "for k in range(n):",
                f"    value = np.uint32({_of(name)})",
                "    column_changes[changed] = value",
                f"    m = (value != last){f' & ({mask})' if mask else ''}",
                "    changed += np.uint64(m)",
                "    last = value if m else last",
                "for k in range(changed):",
                "    value = column_changes[k]",
                f"    {v('d_' + name)} += add_distinct(values{number}, stamp, value) & (value != 0)",
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
