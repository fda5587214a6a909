"""Declarations to a kernel: one reverse scan over a history fills every feature.

For each set of conditions (a group) the kernel keeps only the statistics that some feature needs, adds
each event once on its way back in time, and writes a window's features when it passes the window's
edge. Nothing here runs per event: it writes the source that numba compiles.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from features.definitions import AMOUNT_OPS, CODED_FIELDS, EVENT, Feature, Op, Where

_NEEDS: dict[Op, frozenset[str]] = {
    Op.COUNT: frozenset({"n"}),
    Op.SUM: frozenset({"sum"}),
    Op.MEAN: frozenset({"n", "sum"}),
    Op.STD: frozenset({"n", "moments"}),
    Op.ZSCORE: frozenset({"n", "moments"}),
    Op.MIN: frozenset({"n", "min"}),
    Op.MAX: frozenset({"n", "max"}),
    Op.SHARE: frozenset({"n"}),
    Op.TIME_SINCE: frozenset({"n", "last"}),
    Op.SINCE_FIRST: frozenset({"n", "first"}),
    Op.IS_NEW: frozenset({"n"}),
    Op.DISTINCT: frozenset({"distinct"}),
    Op.DISTANCE: frozenset({"position"}),
    Op.SPEED: frozenset({"position"}),
}
_SAME_CURRENCY = Where("currency", "==", EVENT)
_VECTOR_FIELDS = ("category",)


@dataclass(slots=True)
class _Group:
    """Events that meet the same conditions, and what is kept of them."""

    where: frozenset[Where]
    number: int
    needs: set[str] = field(default_factory=set)
    distinct: dict[str, int] = field(default_factory=dict)  # field -> number of its set
    largest_ms: int = 0

    def var(self, name: str) -> str:
        return f"g{self.number}_{name}"


class _Plan:
    """Groups and windows of a list of declarations."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features
        self.windows = sorted({f.window_ms for f in features if f.window_ms})
        self.groups: dict[frozenset[Where], _Group] = {}
        self.sets = 0
        self.vectors: dict[frozenset[Where], _Group] = {}
        for feature in features:
            if feature.window_ms:
                self._plan(feature)

    def _plan(self, feature: Feature) -> None:
        if self.vector_of(feature) is not None:
            rest = self.where_of(feature) - {self.vector_of(feature)}
            self._group_in(self.vectors, frozenset(w for w in rest if w), feature)
            return
        group = self._group_in(self.groups, self.where_of(feature), feature)
        group.needs |= _NEEDS[feature.op]
        if feature.op is Op.DISTINCT and feature.field not in group.distinct:
            group.distinct[str(feature.field)] = self.sets
            self.sets += 1
        if feature.op is Op.SHARE:
            self._group_in(self.groups, frozenset(), feature).needs.add("n")

    @staticmethod
    def _group_in(
        groups: dict[frozenset[Where], _Group], where: frozenset[Where], feature: Feature
    ) -> _Group:
        group = groups.setdefault(where, _Group(where, len(groups)))
        group.largest_ms = max(group.largest_ms, feature.window_ms)
        return group

    @staticmethod
    def where_of(feature: Feature) -> frozenset[Where]:
        where = set(feature.where)
        if feature.op in AMOUNT_OPS:
            where.add(_SAME_CURRENCY)
        if feature.op is Op.IS_NEW:
            where.add(Where(str(feature.field), "==", EVENT))
        return frozenset(where)

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
        "    add_distinct, haversine_km, hour_utc, newest_transaction, weekday_utc,",
        ")",
        f"N_FEATURES = {len(features)}",
        f"N_SETS = {max(1, plan.sets)}",
        f"N_VECTORS = {max(1, len(plan.vectors))}",
        f"WINDOWS = np.array({plan.windows or [1]}, dtype=np.int64)",
        "NAN = np.nan",
        "@numba.njit(cache=True)",
        "def compute_row(pool, start, end, t, event, has_event, out, values, stamps, stamp, vectors):",
        *_indent(1, _prologue(plan)),
        *_indent(1, ["i = end - 1", "for w in range(WINDOWS.shape[0]):", "    low = t - WINDOWS[w]"]),
        *_indent(2, ["while i >= start and pool[i].time_ms >= low:"]),
        *_indent(3, ["r = pool[i]", "i -= 1", "if r.kind != 0:", "    continue"]),
        *_indent(3, _updates(plan)),
        *_indent(2, _snapshots(plan)),
        *_indent(1, _derived(features)),
    ]
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
    initial = {
        "n": ("n", "0"),
        "sum": ("sum", "0.0"),
        "min": ("min", "np.inf"),
        "max": ("max", "-np.inf"),
        "last": ("last", "np.int64(0)"),
        "first": ("first", "np.int64(0)"),
    }
    for group in plan.groups.values():
        for need in sorted(group.needs & initial.keys()):
            name, value = initial[need]
            lines.append(f"{group.var(name)} = {value}")
        if "moments" in group.needs:
            lines += [f"{group.var(n)} = 0.0" for n in ("shift", "s1", "s2")]
        if "position" in group.needs:
            lines += [f"{group.var('at')} = np.int64(-1)", f"{group.var('lat')} = {group.var('lon')} = 0.0"]
        lines += [f"{group.var('d_' + name)} = 0" for name in group.distinct]
    return lines


def _condition(where: Where) -> str:
    op = where.op
    if where.field in {"hour", "weekday"}:
        return f"{where.field}_utc(r.time_ms) {op} {where.value}"
    if where.field == "direction" or where.field in CODED_FIELDS:
        column = "credit" if where.field == "direction" else where.field
        if where.value == EVENT:
            return f"has_event and r.{column} {op} event.{column}"
        return f"r.{column} {op} {CODED_FIELDS[where.field][str(where.value)]}"
    if where.field == "currency":
        return f"r.currency {op} currency"
    # Where the event has no merchant, what is read here does not count: the feature is unknown.
    return f"has_event and r.{where.field} {op} event.{where.field}"


def _updates(plan: _Plan) -> list[str]:
    lines: list[str] = []
    conditions = sorted(
        {w for where in [*plan.groups, *plan.vectors] for w in where},
        key=lambda w: (w.field, w.op, str(w.value)),
    )
    names = {}
    for number, condition in enumerate(conditions):
        names[condition] = f"c{number}"
        lines.append(f"c{number} = {_condition(condition)}")
    if (
        any(
            "sum" in g.needs or "moments" in g.needs or {"min", "max"} & g.needs for g in plan.groups.values()
        )
        or plan.vectors
    ):
        lines.append("a = np.float64(r.amount_minor)")
    for group in plan.groups.values():
        body = _group_updates(group)
        # Groups whose largest window is past need no more events.
        tests = [names[w] for w in sorted(group.where, key=lambda w: names[w])]
        if group.largest_ms < plan.windows[-1]:
            tests.insert(0, f"w <= {plan.windows.index(group.largest_ms)}")
        lines += [f"if {' and '.join(tests)}:", *_indent(1, body)] if tests else body
    for group in plan.vectors.values():
        tests = [names[w] for w in sorted(group.where, key=lambda w: names[w])]
        lines += [
            f"if {' and '.join([f'w <= {plan.windows.index(group.largest_ms)}', *tests])}:",
            f"    vectors[{group.number}, r.category] += a",
        ]
    return lines


def _group_updates(group: _Group) -> list[str]:
    v, needs = group.var, group.needs
    lines = []
    if "moments" in needs:
        # Sums about the newest amount, not about zero: squares of large equal amounts would cancel.
        lines += [f"if {v('n')} == 0:", f"    {v('shift')} = a"]
        lines += [f"d = a - {v('shift')}", f"{v('s1')} += d", f"{v('s2')} += d * d"]
    if "last" in needs:
        lines += [f"if {v('n')} == 0:", f"    {v('last')} = r.time_ms"]
    if "first" in needs:
        lines.append(f"{v('first')} = r.time_ms")
    if "sum" in needs:
        lines.append(f"{v('sum')} += a")
    for name, test in (("min", "<"), ("max", ">")):
        if name in needs:
            lines += [f"if a {test} {v(name)}:", f"    {v(name)} = a"]
    if "position" in needs:
        lines += [
            f"if {v('at')} < 0 and not math.isnan(r.latitude):",
            f"    {v('at')} = r.time_ms",
            f"    {v('lat')} = r.latitude",
            f"    {v('lon')} = r.longitude",
        ]
    for name, number in group.distinct.items():
        lines += [
            f"if r.{name} != 0:",
            f"    {v('d_' + name)} += add_distinct(values[{number}], stamps[{number}], stamp, r.{name})",
        ]
    if "n" in needs:
        lines.append(f"{v('n')} += 1")
    return lines


def _snapshots(plan: _Plan) -> list[str]:
    lines: list[str] = []
    for number, window in enumerate(plan.windows):
        lines.append(f"{'if' if number == 0 else 'elif'} w == {number}:")
        for column, feature in enumerate(plan.features):
            if feature.window_ms == window:
                lines += _indent(1, _snapshot(plan, feature, column))
                known = _known(plan.where_of(feature))
                if known:
                    lines += _indent(1, [f"if not ({known}):", f"    out[{column}] = NAN"])
    return lines


def _snapshot(plan: _Plan, feature: Feature, column: int) -> list[str]:
    out = f"out[{column}]"
    vector = plan.vector_of(feature)
    if vector is not None:
        group = plan.vectors[plan.where_of(feature) - {vector}]
        return [f"{out} = vectors[{group.number}, {CODED_FIELDS[vector.field][str(vector.value)]}] / scale"]
    v = plan.groups[plan.where_of(feature)].var
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
            total = plan.groups[frozenset()].var("n")
            return [f"{out} = {n} / {total} if {total} > 0 else NAN"]
        case Op.TIME_SINCE:
            return [f"{out} = (t - {v('last')}) / 1000.0 if {n} > 0 else NAN"]
        case Op.SINCE_FIRST:
            return [f"{out} = (t - {v('first')}) / 1000.0 if {n} > 0 else NAN"]
        case Op.IS_NEW:
            return [f"{out} = 1.0 if {n} == 0 else 0.0"]
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
