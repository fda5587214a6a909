"""What the kernel must keep: which statistics of which events, and up to which age."""

from collections.abc import Callable, Sequence
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
    Op.STD: frozenset({"n", "sum", "newest", "squares"}),
    Op.ZSCORE: frozenset({"n", "sum", "newest", "squares"}),
    Op.MIN: frozenset({"min"}),
    Op.MAX: frozenset({"max"}),
    Op.FIRST: frozenset({"oldest"}),
    Op.LAST: frozenset({"newest"}),
    Op.SHARE: frozenset({"n"}),
    Op.TIME_SINCE: frozenset({"newest"}),
    Op.SINCE_FIRST: frozenset({"oldest"}),
    Op.IS_NEW: frozenset({"newest"}),
    Op.DISTINCT: frozenset({"distinct"}),
    Op.DISTANCE: frozenset({"position"}),
    Op.SPEED: frozenset({"position"}),
}
OF_AMOUNTS = frozenset({"sum", "min", "max", "squares"})
_SAME_CURRENCY = Where("currency", "==", EVENT)
_VECTOR_FIELDS = ("category",)
SHORT_MS = 7 * DAY_MS
"""Windows up to this go record by record: they hold few events, and every loop costs compile time."""
_AHEAD_MS = DAY_MS
"""Windows longer than this and up to `SHORT_MS` are summed ahead of the long ones, if that is cheap."""
_CHEAP = frozenset({"n", "sum", "min", "max"})

Key = tuple[frozenset[Where], int]


@dataclass(slots=True)
class Group:
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
        """Name of a statistic's variable in the kernel."""
        return f"g{self.number}_{name}"

    def need(self, name: str, edge_ms: int) -> None:
        """Keep a statistic for a window with this edge."""
        self.needs[name] = max(self.needs.get(name, 0), edge_ms)

    def live(self, edge_ms: int) -> set[str]:
        """Statistics that windows with this edge or a later one read."""
        return {name for name, last in self.needs.items() if last >= edge_ms > self.ends_ms}


class Plan:
    """Groups, edges and loops of a list of declarations."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features
        self.edges = sorted(
            {f.edge_ms for f in features if f.window_ms} | {f.ends_ms for f in features if f.ends_ms}
        )
        self.groups: dict[Key, Group] = {}
        self.sets = 0
        self.vectors: dict[Key, Group] = {}
        for feature in features:
            if feature.window_ms:
                self._plan(feature)

    def _plan(self, feature: Feature) -> None:
        if self.vector_of(feature) is not None:
            self._group_in(self.vectors, self.vector_key(feature)).need("sum", feature.edge_ms)
            return
        group = self._group_in(self.groups, self.key_of(feature))
        coded = feature.field in CODED_FIELDS
        for name in _NEEDS[feature.op]:
            if name == "distinct":
                name = f"{'bits' if coded else 'distinct'}_{feature.field}"
            group.need(name, feature.edge_ms)
        if feature.op is Op.DISTINCT and not coded and feature.field not in group.distinct:
            group.distinct[str(feature.field)] = self.sets
            self.sets += 1
        if feature.op is Op.SHARE:
            self._group_in(self.groups, self.everything(feature)).need("n", feature.edge_ms)

    @staticmethod
    def _group_in(groups: dict[Key, Group], key: Key) -> Group:
        return groups.setdefault(key, Group(*key, len(groups)))

    def loops(self) -> list[list[int]]:
        """Numbers of edges, in order, by the loop that goes through them.

        A new one begins where an offset window's events begin, and each long window has its own.
        """
        begins = {f.ends_ms for f in self.features if f.ends_ms}
        loops: list[list[int]] = []
        for number, edge_ms in enumerate(self.edges):
            alone = edge_ms > SHORT_MS or self.ahead(edge_ms)
            if not loops or alone or self.edges[number - 1] in begins or self.ahead(self.edges[number - 1]):
                loops.append([])
            loops[-1].append(number)
        return loops

    def ahead(self, edge_ms: int) -> list[tuple[Group, set[str]]]:
        """What an edge's own features read, where that is so little that it is summed for itself.

        Its events are then left to the loop of the next edge, which goes column by column: keeping all
        that longer windows need of them, record by record, costs more than going over them twice.
        Empty where that is not so.
        """
        own = [feature for feature in self.features if feature.window_ms and feature.edge_ms == edge_ms]
        cheap = all(self.vector_of(f) is None and _NEEDS[f.op] <= _CHEAP for f in own)
        begins = any(feature.ends_ms == edge_ms for feature in self.features)
        if begins or not cheap or not _AHEAD_MS < edge_ms <= SHORT_MS:
            return []
        read: dict[Key, set[str]] = {}
        for feature in own:
            read.setdefault(self.key_of(feature), set()).update(_NEEDS[feature.op])
            if feature.op is Op.SHARE:
                read.setdefault(self.everything(feature), set()).add("n")
        return [(self.groups[key], needs) for key, needs in read.items()]

    def live(self, edge_ms: int) -> tuple[list[tuple[Group, set[str]]], list[Group]]:
        """Groups with what is live of them on the way to an edge, and groups of sums per category."""
        groups = [(group, group.live(edge_ms)) for group in self.groups.values()]
        vectors = [group for group in self.vectors.values() if group.live(edge_ms)]
        return [(group, live) for group, live in groups if live], vectors

    @staticmethod
    def where_of(feature: Feature) -> frozenset[Where]:
        """Conditions of a feature, with those that its operation brings."""
        where = set(feature.where)
        if is_of_amounts(feature):
            where.add(_SAME_CURRENCY)
        if feature.op is Op.IS_NEW:
            where.add(Where(str(feature.field), "==", EVENT))
        return frozenset(where)

    @classmethod
    def key_of(cls, feature: Feature) -> Key:
        """Conditions and end by which features share a group."""
        return cls.where_of(feature), feature.ends_ms

    @staticmethod
    def everything(feature: Feature) -> Key:
        """All events of a feature's window."""
        return frozenset(), feature.ends_ms

    @classmethod
    def vector_key(cls, feature: Feature) -> Key:
        """The same without the condition that is an index."""
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


def column_of(field: str) -> str:
    """Name of a condition's field in a record."""
    return {"direction": "credit", "amount": "amount_minor"}.get(field, field)


def event_columns(groups: Sequence[Group]) -> list[str]:
    """Fields of the scored event that past ones are compared with; its currency is known by itself."""
    compared = {column_of(w.field) for group in groups for w in group.where if w.value == EVENT}
    return sorted(compared - {"currency"})


def ordered(where: frozenset[Where]) -> list[Where]:
    """Conditions in an order that does not depend on hashes: the source must always be the same."""
    return sorted(where, key=lambda w: (w.field, w.op, str(w.value)))


def condition(where: Where, of: Callable[[str], str]) -> str:
    """Expression of a condition on a past event.

    Args:
        where: The condition.
        of: Gives the expression for a column of the past event.
    """
    column = column_of(where.field)
    value = of(column)
    if where.field in CLOCK_FIELDS:
        return f"{value} {where.op} {where.value}"
    if where.field == "amount" and where.value != EVENT:
        # Divided, as a feature's amount is: 1.10 is then the same number on both sides.
        return f"{value} / MINOR_UNITS[{of('currency')}] {where.op} {float(where.value)!r}"
    return f"{value} {where.op} {value_of(where)}"


def value_of(where: Where) -> str:
    """Expression of the code that a condition compares with."""
    column, text = column_of(where.field), str(where.value)
    if where.value == EVENT:
        # Where the event has no merchant, what is read here does not count: the feature is unknown.
        return "currency" if column == "currency" else f"event_{column}"
    if where.field in CODED_FIELDS:
        return str(CODED_FIELDS[where.field][text])
    return str(letters_code(text) if column in {"country", "currency"} else name_hash(text))


def indent(levels: int, lines: Sequence[str]) -> list[str]:
    """Lines of source, further in."""
    return ["    " * levels + line for line in lines]
