"""Declarations to a kernel: one reverse scan over a history fills every feature.

For each set of conditions (a group) the kernel keeps only the statistics that some feature needs, adds
each event once on its way back in time, and writes a window's features when it passes the window's
edge. Short windows share a loop that goes record by record; long ones, which hold most events, have loops
of their own, in which what only shorter ones need is left out and which go column by column
(`features.columns`) unless hardly any records are left. Both keep the same numbers. Conditions are
numbers that are added, not branches: which way an event goes cannot be predicted. Nothing here runs per
event: it writes the source that numba compiles.
"""

from collections.abc import Sequence

from features import clock as clocks
from features.columns import TILE, amount_updates, columns_call, columns_function, high_updates
from features.definitions import CLOCK_FIELDS, CODED_FIELDS, EVENT, Feature, Op, Where
from features.plan import OF_AMOUNTS, SHORT_MS, Group, Plan, condition, event_columns, indent, ordered

FEW = 32
"""Records of a window from which on columns are worth what they cost to set up."""


def generate(features: Sequence[Feature], clock: clocks.Clock = clocks.UTC) -> str:
    """Source of a module with `compute_row` for these declarations, in their order, by a place's clocks."""
    plan = Plan(features)
    lines = [
        '"""Generated from feature declarations; not edited by hand."""',
        "import math",
        "import numba",
        "import numpy as np",
        "from features.codes import MINOR_UNITS",
        "from features.kernels import (",
        "    INNER, SQUARE_BITS, add_distinct, count_bits, deviation_sum, haversine_km, hour_of,",
        "    newest_transaction, packed_codes, prefetch, sample_std, weekday_of,",
        ")",
        *clocks.source(clock),
        f"N_FEATURES = {len(features)}",
        f"N_SETS = {max(1, plan.sets)}",
        f"N_VECTORS = {max(1, len(plan.vectors))}",
        f"WINDOWS = np.array({plan.edges or [1]}, dtype=np.int64)",
        "NAN = np.nan",
        "ZERO, ONE = np.uint64(0), np.uint64(1)",
        "NONE, FAR = np.int64(-1), np.int64(2**62)",
        "BITS, LOW = np.uint64(SQUARE_BITS), np.uint64(2**SQUARE_BITS - 1)",
        f"TILE, FEW = np.uint64({TILE}), np.uint64({FEW})",
    ]
    for number, edge_ms in enumerate(plan.edges):
        if edge_ms > SHORT_MS:
            lines += columns_function(plan, number)
    lines += [
        "@numba.njit(**INNER)",
        "def compute_row(pool, start, end, away, t, event, has_event, out, values, stamp, vectors, columns):",
        *indent(1, _prologue(plan)),
    ]
    for loop in plan.loops():
        edge_ms = plan.edges[loop[0]]
        ahead = plan.ahead(edge_ms)
        by_record = [
            "while i > begin and pool[i - ONE].time_ms >= low:",
            *indent(1, ["i -= ONE", "r = pool[i]", "if r.kind != 0:", "    continue"]),
            *indent(1, _updates(ahead, []) if ahead else _updates(*plan.live(edge_ms))),
        ]
        if ahead:
            kept = ["i", *(group.var(need) for group, needs in ahead for need in sorted(needs))]
            before = [f"before_{name}" for name in kept]
            lines += indent(1, [f"low = t - WINDOWS[{loop[0]}]", f"{', '.join(before)} = {', '.join(kept)}"])
            lines += indent(1, [*by_record, *_snapshot_of_edge(plan, loop[0])])
            lines += indent(1, [f"{', '.join(kept)} = {', '.join(before)}"])
        elif edge_ms > SHORT_MS:
            few = "if i - begin < FEW or pool[i - FEW].time_ms < low:"
            lines += indent(1, [f"low = t - WINDOWS[{loop[0]}]", few])
            lines += [*indent(2, by_record), "    else:", *indent(2, [columns_call(plan, loop[0])])]
            lines += indent(1, _snapshot_of_edge(plan, loop[0]))
        else:
            lines += indent(1, [f"for w in range({loop[0]}, {loop[-1] + 1}):", "    low = t - WINDOWS[w]"])
            lines += [*indent(2, by_record), *indent(2, _snapshots(plan, loop))]
    lines += indent(1, _derived(features))
    return "\n".join(lines) + "\n"


def _prologue(plan: Plan) -> list[str]:
    lines = [
        "if has_event:",
        "    currency = event.currency",
        "else:",
        "    newest = newest_transaction(pool, start, end)",
        "    currency = pool[newest].currency if newest >= start else np.uint16(0)",
        "scale = MINOR_UNITS[currency]",
        "hour_now = hour_at(t)",
        "weekday_now = weekday_at(t)",
        "vectors[:] = 0.0",
        # Unsigned: numba looks for indices that count from the end wherever it cannot rule them out.
        "begin, i, none = np.uint64(start), np.uint64(end), np.uint64(end)",
    ]
    compared = event_columns([*plan.groups.values(), *plan.vectors.values()])
    lines += [f"event_{name} = event.{name}" for name in compared]
    # Once, not for every event: a row of an array is an object that is made.
    for number in range(plan.sets):
        lines.append(f"values{number} = values[{number}]")
    lines += [f"vector{group.number} = vectors[{group.number}]" for group in plan.vectors.values()]
    # Numbers with a type: for a plain 0 numba compiles what it is passed to once more.
    initial = {"n": "np.int64(0)", "sum": "ZERO", "min": "FAR", "max": "NONE"}
    for group in plan.groups.values():
        for need in sorted(group.needs):
            if need in {"newest", "oldest", "position"}:
                lines.append(f"{group.var(need)} = none")
            elif need == "squares":
                lines.append(f"{group.var('shift')} = np.int64(0)")
                lines += [f"{group.var(part)} = ZERO" for part in ("low", "mid", "high")]
            elif need.startswith("bits_"):
                lines.append(f"{group.var(need)} = ZERO")
            elif need in initial:
                lines.append(f"{group.var(need)} = {initial[need]}")
        lines += [f"{group.var('d_' + name)} = np.int64(0)" for name in group.distinct]
    return lines


def _updates(groups: Sequence[tuple[Group, set[str]]], vectors: Sequence[Group]) -> list[str]:
    """What one event adds to what is live of each group, and to sums per category."""
    conditions = ordered(frozenset(w for group in [*(g for g, _ in groups), *vectors] for w in group.where))
    names = {where: f"c{number}" for number, where in enumerate(conditions)}
    compared = {w.field for w in conditions}
    lines = [f"{name} = {name}_at(r.time_ms)" for name in CLOCK_FIELDS if name in compared]
    lines += [f"{name} = {condition(where, _of_record)}" for where, name in names.items()]
    if vectors or any(live & OF_AMOUNTS for _, live in groups):
        lines.append("a = r.amount_minor")
    for group, live in groups:
        lines += _group_updates(group, live, _mask(group, names))
    for group in vectors:
        mask = _mask(group, names)
        added = f"np.float64(a) if {mask} else 0.0" if mask else "np.float64(a)"
        lines.append(f"vector{group.number}[r.category] += {added}")
    return lines


def _of_record(column: str) -> str:
    return column if column in CLOCK_FIELDS else f"r.{column}"


def _mask(group: Group, names: dict[Where, str]) -> str:
    return " & ".join(f"({names[w]})" for w in ordered(group.where))


def _group_updates(group: Group, live: set[str], mask: str) -> list[str]:
    v = group.var
    lines = [f"m = {mask}"] if mask else []

    def where(value: str, other: str) -> str:
        return f"{value} if m else {other}" if mask else value

    def only(test: str) -> str:
        return f"m & ({test})" if mask else test

    if "squares" in live:
        # Sums about the newest amount, not about zero: squares of large equal amounts would cancel.
        lines.append(f"{v('shift')} = a if {only(v('newest') + ' == none')} else {v('shift')}")
    if "newest" in live:
        lines.append(f"{v('newest')} = i if {only(v('newest') + ' == none')} else {v('newest')}")
    if "oldest" in live:
        lines.append(f"{v('oldest')} = {where('i', v('oldest'))}")
    for need in sorted(live):
        if need.startswith("bits_"):
            bit = f"ONE << np.uint64(r.{need.removeprefix('bits_')})"
            lines.append(f"{v(need)} |= {where(bit, 'ZERO')}")
    lines += amount_updates(group, live, where)
    if "squares" in live:
        lines += ["if d > LOW:", *indent(1, high_updates(group))]
    if "position" in live:
        lines += [
            f"if {v('position')} == none and not math.isnan(r.latitude){' and m' if mask else ''}:",
            f"    {v('position')} = i",
        ]
    for name, number in group.distinct.items():
        if f"distinct_{name}" in live:
            lines += [
                f"if r.{name} != 0{' and m' if mask else ''}:",
                f"    {v('d_' + name)} += add_distinct(values{number}, stamp, r.{name})",
            ]
    if "n" in live:
        lines.append(f"{v('n')} += {where('1', '0')}")
    return lines


def _value_of(name: str, at: str) -> str:
    """A field of a past event as a number; NaN where it has none."""
    if name in CLOCK_FIELDS:
        return f"np.float64({name}_at(pool[{at}].time_ms))"
    if name == "amount":
        return f"np.float64(pool[{at}].amount_minor) / scale"
    if name == "card_present":
        return f"(pool[{at}].card_present - 1.0 if pool[{at}].card_present != 0 else NAN)"
    return f"(np.float64(pool[{at}].{name}) if pool[{at}].{name} != 0 else NAN)"


def _snapshots(plan: Plan, loop: Sequence[int]) -> list[str]:
    lines: list[str] = []
    for number in loop:
        written = _snapshot_of_edge(plan, number)
        if written:
            lines += [f"if w == {number}:", *indent(1, written)]
    return lines


def _snapshot_of_edge(plan: Plan, number: int) -> list[str]:
    written: list[str] = []
    for column, feature in enumerate(plan.features):
        if feature.window_ms and feature.edge_ms == plan.edges[number]:
            written += _snapshot(plan, feature, column)
            known = _known(plan.where_of(feature))
            if known:
                written += [f"if not ({known}):", f"    out[{column}] = NAN"]
    return written


def _snapshot(plan: Plan, feature: Feature, column: int) -> list[str]:
    out = f"out[{column}]"
    vector = plan.vector_of(feature)
    if vector is not None:
        group = plan.vectors[plan.vector_key(feature)]
        code = CODED_FIELDS[vector.field][str(vector.value)]
        return [f"{out} = vector{group.number}[{code}] / scale"]
    v = plan.groups[plan.key_of(feature)].var
    n = v("n")
    deviations = f"deviation_sum({n}, {v('sum')}, {v('shift')})"
    deviation = f"sample_std({n}, {deviations}, {v('low')}, {v('mid')}, {v('high')})"
    match feature.op:
        case Op.COUNT:
            return [f"{out} = {n}"]
        case Op.SUM:
            return [f"{out} = np.float64({v('sum')}) / scale"]
        case Op.MEAN:
            return [f"{out} = np.float64({v('sum')}) / {n} / scale if {n} > 0 else NAN"]
        case Op.MIN:
            return [f"{out} = np.float64({v('min')}) / scale if {v('min')} < FAR else NAN"]
        case Op.MAX:
            return [f"{out} = np.float64({v('max')}) / scale if {v('max')} > NONE else NAN"]
        case Op.FIRST | Op.LAST:
            at = v("oldest" if feature.op is Op.FIRST else "newest")
            return [f"{out} = {_value_of(feature.field or 'amount', at)} if {at} != none else NAN"]
        case Op.STD:
            return [f"{out} = {deviation} / scale if {n} > 1 else NAN"]
        case Op.ZSCORE:
            return [
                f"{out} = NAN",
                f"if has_event and {n} > 1:",
                f"    deviation = {deviation}",
                "    if deviation > 0.0:",
                f"        from_shift = np.float64(event.amount_minor - {v('shift')})",
                f"        {out} = (from_shift - {deviations} / {n}) / deviation",
            ]
        case Op.SHARE:
            total = plan.groups[plan.everything(feature)].var("n")
            return [f"{out} = {n} / {total} if {total} > 0 else NAN"]
        case Op.TIME_SINCE:
            return [f"{out} = (t - pool[{v('newest')}].time_ms) / 1000.0 if {v('newest')} != none else NAN"]
        case Op.SINCE_FIRST:
            return [f"{out} = (t - pool[{v('oldest')}].time_ms) / 1000.0 if {v('oldest')} != none else NAN"]
        case Op.IS_NEW:
            return [f"{out} = 1.0 if {v('newest')} == none else 0.0"]
        case Op.DISTINCT if feature.field in CODED_FIELDS:
            # The lowest bit is that of events without one.
            return [f"{out} = count_bits({v(f'bits_{feature.field}')} >> np.uint64(1))"]
        case Op.DISTINCT:
            return [f"{out} = {v('d_' + str(feature.field))}"]
        case Op.DISTANCE | Op.SPEED:
            lines = [
                f"{out} = NAN",
                f"if has_event and {v('position')} != none and not math.isnan(event.latitude):",
                f"    at = pool[{v('position')}]",
                # Widened first: radians of a 32-bit angle are 32-bit too, off by a metre.
                "    lat, lon = np.float64(event.latitude), np.float64(event.longitude)",
                "    km = haversine_km(np.float64(at.latitude), np.float64(at.longitude), lat, lon)",
            ]
            # Within a minute every speed is noise of the position: a minute is the least time counted.
            speed = "km / (max(60000, t - at.time_ms) / 3600000.0)"
            return [*lines, f"    {out} = {'km' if feature.op is Op.DISTANCE else speed}"]
    raise AssertionError(feature.op)


def _known(where: frozenset[Where]) -> str | None:
    """Test that the scored event has the values that conditions compare with, where some do.

    A lookup's amounts are in a currency too, and every event has a direction and an amount.
    """
    compared = sorted({w.field for w in where if w.value == EVENT} - {"currency"})
    tests = [f"event.{name} != 0" for name in compared if name not in {"direction", "amount"}]
    return " and ".join(["has_event", *tests]) if compared else None


def _derived(features: Sequence[Feature]) -> list[str]:
    column = {feature.name: number for number, feature in enumerate(features)}
    values = {
        "amount": "event.amount_minor / scale",
        "hour": "hour_now",
        "weekday": "weekday_now",
        "is_night": "1.0 if hour_now < 6 else 0.0",
        "is_credit": "event.credit",
        "channel": "event.channel if event.channel != 0 else NAN",
        "category": "event.category if event.category != 0 else NAN",
        "transaction_type": "event.transaction_type if event.transaction_type != 0 else NAN",
        "card_present": "event.card_present - 1.0 if event.card_present != 0 else NAN",
    }
    lines = []
    for feature in features:
        out = f"out[{column[feature.name]}]"
        if feature.op is Op.EVENT_VALUE:
            lines.append(f"{out} = ({values[str(feature.field)]}) if has_event else NAN")
        elif feature.op is Op.RATIO:
            over, under = (f"out[{column[name]}]" for name in feature.of)
            lines.append(f"{out} = {over} / {under} * {feature.scale!r} if {under} > 0.0 else NAN")
    return lines or ["pass"]
