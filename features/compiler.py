"""Declarations to a kernel: one reverse scan over a history fills every feature.

For each set of conditions (a group) the kernel keeps only the statistics that some feature needs, adds
each event once on its way back in time, and writes a window's features when it passes the window's
edge. Long windows, which hold most events, have loops of their own: what only shorter ones need is
left out there. Conditions are numbers that are added, not branches: which way an event goes cannot be
predicted. Nothing here runs per event: it writes the source that numba compiles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from features.codes import letters_code, name_hash
from features.definitions import (
    CLOCK_FIELDS,
    CODED_FIELDS,
    DAY_MS,
    EVENT,
    Feature,
    Op,
    Where,
    is_of_amounts,
)

_NEEDS: dict[Op, frozenset[str]] = {
    Op.COUNT: frozenset({"n"}),
    Op.SUM: frozenset({"sum"}),
    Op.MEAN: frozenset({"n", "sum"}),
    Op.STD: frozenset({"n", "moments"}),
    Op.ZSCORE: frozenset({"n", "moments"}),
    Op.MIN: frozenset({"n", "min"}),
    Op.MAX: frozenset({"n", "max"}),
    Op.FIRST: frozenset({"n", "oldest"}),
    Op.LAST: frozenset({"n", "newest"}),
    Op.SHARE: frozenset({"n"}),
    Op.TIME_SINCE: frozenset({"last"}),
    Op.SINCE_FIRST: frozenset({"n", "first"}),
    Op.IS_NEW: frozenset({"n"}),
    Op.DISTINCT: frozenset({"distinct"}),
    Op.DISTANCE: frozenset({"position"}),
    Op.SPEED: frozenset({"position"}),
}
_SAME_CURRENCY = Where("currency", "==", EVENT)
_VECTOR_FIELDS = ("category",)
_OWN_LOOP_MS = 7 * DAY_MS
"""Windows up to this share a loop: they hold few events, and every loop costs compile time."""

_Key = tuple[frozenset[Where], int]


@dataclass(slots=True)
class _Group:
    """Events that meet the same conditions, and what is kept of them.

    Attributes:
        ends_ms: Only events that are at least this old are counted.
        needs: For each statistic the largest edge at which a feature reads it.
        distinct: For each field the number of its set.
    """

    where: frozenset[Where]
    ends_ms: int
    number: int
    needs: dict[str, int] = field(default_factory=dict)
    distinct: dict[str, int] = field(default_factory=dict)

    def var(self, name: str) -> str:
        return f"g{self.number}_{name}"

    def need(self, name: str, edge_ms: int) -> None:
        self.needs[name] = max(self.needs.get(name, 0), edge_ms)

    def live(self, edge_ms: int) -> set[str]:
        """Statistics that windows with this edge or a later one read."""
        return {name for name, last in self.needs.items() if last >= edge_ms > self.ends_ms}


class _Plan:
    """Groups, edges and loops of a list of declarations."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features
        self.edges = sorted(
            {f.edge_ms for f in features if f.window_ms} | {f.ends_ms for f in features if f.ends_ms}
        )
        self.groups: dict[_Key, _Group] = {}
        self.sets = 0
        self.vectors: dict[_Key, _Group] = {}
        for feature in features:
            if feature.window_ms:
                self._plan(feature)

    def _plan(self, feature: Feature) -> None:
        if self.vector_of(feature) is not None:
            self._group_in(self.vectors, self.vector_key(feature)).need("sum", feature.edge_ms)
            return
        group = self._group_in(self.groups, self.key_of(feature))
        for name in _NEEDS[feature.op]:
            if name in {"newest", "oldest"}:
                name = f"{name}_{feature.field or 'amount'}"
            elif name == "distinct":
                name = f"{'bits' if feature.field in CODED_FIELDS else 'distinct'}_{feature.field}"
            group.need(name, feature.edge_ms)
        coded = feature.field in CODED_FIELDS
        if feature.op is Op.DISTINCT and not coded and feature.field not in group.distinct:
            group.distinct[str(feature.field)] = self.sets
            self.sets += 1
        if feature.op is Op.SHARE:
            self._group_in(self.groups, self.everything(feature)).need("n", feature.edge_ms)

    @staticmethod
    def _group_in(groups: dict[_Key, _Group], key: _Key) -> _Group:
        return groups.setdefault(key, _Group(*key, len(groups)))

    def loops(self) -> list[list[int]]:
        """Numbers of edges, in order, by the loop that goes through them.

        A new one begins where an offset window's events begin, and behind each long window.
        """
        begins = {f.ends_ms for f in self.features if f.ends_ms}
        loops: list[list[int]] = []
        for number in range(len(self.edges)):
            before = self.edges[number - 1] if number else 0
            if not number or before in begins or before >= _OWN_LOOP_MS:
                loops.append([])
            loops[-1].append(number)
        return loops

    @staticmethod
    def where_of(feature: Feature) -> frozenset[Where]:
        where = set(feature.where)
        if is_of_amounts(feature):
            where.add(_SAME_CURRENCY)
        if feature.op is Op.IS_NEW:
            where.add(Where(str(feature.field), "==", EVENT))
        return frozenset(where)

    @classmethod
    def key_of(cls, feature: Feature) -> _Key:
        return cls.where_of(feature), feature.ends_ms

    @staticmethod
    def everything(feature: Feature) -> _Key:
        """All events of a feature's window."""
        return frozenset(), feature.ends_ms

    @classmethod
    def vector_key(cls, feature: Feature) -> _Key:
        rest = cls.where_of(feature) - {cls.vector_of(feature)}
        return frozenset(where for where in rest if where), feature.ends_ms

    @staticmethod
    def vector_of(feature: Feature) -> Where | None:
        """The condition that a sum per category turns into an index, if it is one."""
        if feature.op is not Op.SUM:
            return None
        return next(
            (w for w in feature.where if w.field in _VECTOR_FIELDS and w.op == "==" and w.value != EVENT),
            None,
        )


def generate(features: Sequence[Feature]) -> str:
    """Source of a module with `compute_row` for these declarations, in their order."""
    plan = _Plan(features)
    lines = [
        '"""Generated from feature declarations; not edited by hand."""',
        "import math",
        "import numba",
        "import numpy as np",
        "from features.codes import MINOR_UNITS",
        "from features.kernels import (",
        "    add_distinct, count_bits, haversine_km, hour_utc, newest_transaction, weekday_utc,",
        ")",
        f"N_FEATURES = {len(features)}",
        f"N_SETS = {max(1, plan.sets)}",
        f"N_VECTORS = {max(1, len(plan.vectors))}",
        f"WINDOWS = np.array({plan.edges or [1]}, dtype=np.int64)",
        "NAN = np.nan",
        "NEVER = np.int64(-(2**62))",
        "@numba.njit(cache=True)",
        "def compute_row(pool, start, end, t, event, has_event, out, values, stamp, vectors):",
        *_indent(1, _prologue(plan)),
        "    i = end - 1",
    ]
    for loop in plan.loops():
        lines += [
            *_indent(1, [f"for w in range({loop[0]}, {loop[-1] + 1}):", "    low = t - WINDOWS[w]"]),
            *_indent(2, ["while i >= start and pool[i].time_ms >= low:"]),
            *_indent(3, ["r = pool[i]", "i -= 1", "if r.kind != 0:", "    continue"]),
            *_indent(3, _updates(plan, plan.edges[loop[0]])),
            *_indent(2, _snapshots(plan, loop)),
        ]
    lines += _indent(1, _derived(features))
    return "\n".join(lines) + "\n"


def _indent(levels: int, lines: Iterable[str]) -> list[str]:
    return ["    " * levels + line for line in lines]


def _prologue(plan: _Plan) -> list[str]:
    lines = [
        "if has_event:",
        "    currency = event.currency",
        "else:",
        "    newest = newest_transaction(pool, start, end)",
        "    currency = pool[newest].currency if newest >= start else np.uint16(0)",
        "scale = MINOR_UNITS[currency]",
        "hour_now = hour_utc(t)",
        "weekday_now = weekday_utc(t)",
        "vectors[:] = 0.0",
    ]
    # Once, not for every event: a row of an array is an object that is made.
    for number in range(plan.sets):
        lines.append(f"values{number} = values[{number}]")
    lines += [f"vector{group.number} = vectors[{group.number}]" for group in plan.vectors.values()]
    initial = {
        "n": "0",
        "sum": "0.0",
        "min": "np.inf",
        "max": "-np.inf",
        "last": "NEVER",
        "first": "np.int64(0)",
    }
    for group in plan.groups.values():
        for need in sorted(group.needs):
            if need in initial:
                lines.append(f"{group.var(need)} = {initial[need]}")
            elif need.startswith(("newest_", "oldest_")):
                lines.append(f"{group.var(need)} = NAN")
            elif need.startswith("bits_"):
                lines.append(f"{group.var(need)} = np.uint64(0)")
        if "moments" in group.needs:
            lines += [f"{group.var(n)} = 0.0" for n in ("shift", "s1", "s2")]
        if "position" in group.needs:
            lines += [f"{group.var('at')} = np.int64(-1)", f"{group.var('lat')} = {group.var('lon')} = 0.0"]
        lines += [f"{group.var('d_' + name)} = 0" for name in group.distinct]
    return lines


def _condition(where: Where) -> str:
    op = where.op
    if where.field in CLOCK_FIELDS:
        return f"{where.field} {op} {where.value}"
    if where.field == "amount":
        # Divided, as a feature's amount is: 1.10 is then the same number on both sides.
        return f"r.amount_minor / MINOR_UNITS[r.currency] {op} {float(where.value)!r}"
    column = "credit" if where.field == "direction" else where.field
    if where.value == EVENT:
        # Where the event has no merchant, what is read here does not count: the feature is unknown.
        return f"r.{column} {op} " + ("currency" if column == "currency" else f"event.{column}")
    if where.field in CODED_FIELDS:
        return f"r.{column} {op} {CODED_FIELDS[where.field][str(where.value)]}"
    text = str(where.value)
    return f"r.{column} {op} {letters_code(text) if column in {'country', 'currency'} else name_hash(text)}"


def _updates(plan: _Plan, edge_ms: int) -> list[str]:
    """What one event adds, on the way to this edge."""
    groups = [(g, g.live(edge_ms)) for g in plan.groups.values()]
    groups = [(g, live) for g, live in groups if live]
    vectors = [g for g in plan.vectors.values() if g.live(edge_ms)]
    conditions = sorted(
        {w for group in [*(g for g, _ in groups), *vectors] for w in group.where},
        key=lambda w: (w.field, w.op, str(w.value)),
    )
    names = {condition: f"c{number}" for number, condition in enumerate(conditions)}
    clocks = {w.field for w in conditions} | {need.split("_")[-1] for _, live in groups for need in live}
    lines = [f"{name} = {name}_utc(r.time_ms)" for name in CLOCK_FIELDS if name in clocks]
    lines += [f"{name} = {_condition(condition)}" for condition, name in names.items()]
    of_amounts = {"sum", "moments", "min", "max", "newest_amount", "oldest_amount"}
    if vectors or any(live & of_amounts for _, live in groups):
        lines.append("a = np.float64(r.amount_minor)")
    for group, live in groups:
        lines += _group_updates(group, live, _mask(group, names))
    for group in vectors:
        mask = _mask(group, names)
        lines.append(f"vector{group.number}[r.category] += {f'a if {mask} else 0.0' if mask else 'a'}")
    return lines


def _mask(group: _Group, names: dict[Where, str]) -> str:
    return " & ".join(f"({names[w]})" for w in sorted(group.where, key=lambda w: names[w]))


def _group_updates(group: _Group, live: set[str], mask: str) -> list[str]:
    v = group.var
    lines = []
    if mask:
        lines.append(f"m = {mask}")

    def where(value: str, other: str) -> str:
        return f"{value} if m else {other}" if mask else value

    def only(test: str) -> str:
        return f"m & ({test})" if mask else test

    if "moments" in live:
        # Sums about the newest amount, not about zero: squares of large equal amounts would cancel.
        lines.append(f"{v('shift')} = a if {only(v('n') + ' == 0')} else {v('shift')}")
        lines.append(f"d = {where('a - ' + v('shift'), '0.0')}")
        lines += [f"{v('s1')} += d", f"{v('s2')} += d * d"]
    if "last" in live:
        lines.append(f"{v('last')} = max({v('last')}, {where('r.time_ms', 'NEVER')})")
    if "first" in live:
        lines.append(f"{v('first')} = {where('r.time_ms', v('first'))}")
    for need in sorted(live):
        if need.startswith("newest_"):
            value = _value_of(need.removeprefix("newest_"))
            lines.append(f"{v(need)} = {value} if {only(v('n') + ' == 0')} else {v(need)}")
        elif need.startswith("oldest_"):
            lines.append(f"{v(need)} = {where(_value_of(need.removeprefix('oldest_')), v(need))}")
        elif need.startswith("bits_"):
            bit = f"np.uint64(1) << np.uint64(r.{need.removeprefix('bits_')})"
            lines.append(f"{v(need)} |= {where(bit, 'np.uint64(0)')}")
    if "sum" in live:
        lines.append(f"{v('sum')} += {where('a', '0.0')}")
    if "min" in live:
        lines.append(f"{v('min')} = min({v('min')}, {where('a', 'np.inf')})")
    if "max" in live:
        lines.append(f"{v('max')} = max({v('max')}, {where('a', '-np.inf')})")
    if "position" in live:
        lines += [
            f"if {v('at')} < 0 and not math.isnan(r.latitude){' and m' if mask else ''}:",
            f"    {v('at')} = r.time_ms",
            f"    {v('lat')} = r.latitude",
            f"    {v('lon')} = r.longitude",
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


def _value_of(name: str) -> str:
    """A field of a past event as a number; NaN where it has none."""
    if name in CLOCK_FIELDS:
        return f"np.float64({name})"
    if name == "amount":
        return "a"
    if name == "card_present":
        return "(r.card_present - 1.0 if r.card_present != 0 else NAN)"
    if name == "direction":
        return "np.float64(r.credit)"
    return f"(np.float64(r.{name}) if r.{name} != 0 else NAN)"


def _snapshots(plan: _Plan, loop: Sequence[int]) -> list[str]:
    lines: list[str] = []
    for number in loop:
        written: list[str] = []
        for column, feature in enumerate(plan.features):
            if feature.window_ms and feature.edge_ms == plan.edges[number]:
                written += _snapshot(plan, feature, column)
                known = _known(plan.where_of(feature))
                if known:
                    written += [f"if not ({known}):", f"    out[{column}] = NAN"]
        if written:
            lines += [f"if w == {number}:", *_indent(1, written)]
    return lines


def _snapshot(plan: _Plan, feature: Feature, column: int) -> list[str]:
    out = f"out[{column}]"
    vector = plan.vector_of(feature)
    if vector is not None:
        group = plan.vectors[plan.vector_key(feature)]
        return [f"{out} = vector{group.number}[{CODED_FIELDS[vector.field][str(vector.value)]}] / scale"]
    v = plan.groups[plan.key_of(feature)].var
    n = v("n")
    variance = f"max(0.0, ({v('s2')} - {v('s1')} * {v('s1')} / {n}) / ({n} - 1))"
    match feature.op:
        case Op.COUNT:
            return [f"{out} = {n}"]
        case Op.SUM:
            return [f"{out} = {v('sum')} / scale"]
        case Op.MEAN:
            return [f"{out} = {v('sum')} / {n} / scale if {n} > 0 else NAN"]
        case Op.MIN | Op.MAX:
            return [f"{out} = {v(feature.op.value)} / scale if {n} > 0 else NAN"]
        case Op.FIRST | Op.LAST:
            name = feature.field or "amount"
            kept = v(f"{'oldest' if feature.op is Op.FIRST else 'newest'}_{name}")
            return [f"{out} = {kept}{' / scale' if name == 'amount' else ''}"]
        case Op.STD:
            return [f"{out} = math.sqrt({variance}) / scale if {n} > 1 else NAN"]
        case Op.ZSCORE:
            return [
                f"{out} = NAN",
                f"if has_event and {n} > 1:",
                f"    deviation = math.sqrt({variance})",
                "    if deviation > 0.0:",
                f"        from_shift = np.float64(event.amount_minor) - {v('shift')}",
                f"        {out} = (from_shift - {v('s1')} / {n}) / deviation",
            ]
        case Op.SHARE:
            total = plan.groups[plan.everything(feature)].var("n")
            return [f"{out} = {n} / {total} if {total} > 0 else NAN"]
        case Op.TIME_SINCE:
            return [f"{out} = (t - {v('last')}) / 1000.0 if {v('last')} > NEVER else NAN"]
        case Op.SINCE_FIRST:
            return [f"{out} = (t - {v('first')}) / 1000.0 if {n} > 0 else NAN"]
        case Op.IS_NEW:
            return [f"{out} = 1.0 if {n} == 0 else 0.0"]
        case Op.DISTINCT if feature.field in CODED_FIELDS:
            # The lowest bit is that of events without one.
            return [f"{out} = count_bits({v(f'bits_{feature.field}')} >> np.uint64(1))"]
        case Op.DISTINCT:
            return [f"{out} = {v('d_' + str(feature.field))}"]
        case Op.DISTANCE | Op.SPEED:
            lines = [
                f"{out} = NAN",
                f"if has_event and {v('at')} >= 0 and not math.isnan(event.latitude):",
                # Widened first: radians of a 32-bit angle are 32-bit too, off by a metre.
                "    lat, lon = np.float64(event.latitude), np.float64(event.longitude)",
                f"    km = haversine_km({v('lat')}, {v('lon')}, lat, lon)",
            ]
            # Within a minute every speed is noise of the position: a minute is the least time counted.
            speed = f"km / (max(60000, t - {v('at')}) / 3600000.0)"
            return [*lines, f"    {out} = {'km' if feature.op is Op.DISTANCE else speed}"]
    raise AssertionError(feature.op)


def _known(where: frozenset[Where]) -> str | None:
    """Test that the scored event has the values that conditions compare with, where some do.

    A lookup's amounts are in a currency too, and every event has a direction.
    """
    compared = sorted({w.field for w in where if w.value == EVENT} - {"currency"})
    tests = [f"event.{name} != 0" for name in compared if name != "direction"]
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
