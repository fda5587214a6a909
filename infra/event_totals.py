"""Totals over the event log's files: what DuckDB is asked, and its answer as JSON.

An answer is written where it was made, in a thread, and as bytes: tens of thousands of rows that become
objects on the event loop stop everything else for seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import duckdb
import orjson

MOST_GROUPS: Final = 20_000
"""Of one answer: the hours of a month, by decision, in nine currencies; some four megabytes."""
TOO_MANY: Final = (
    f"there are more than {MOST_GROUPS:,} groups: ask by fewer properties or for fewer days, "
    "or for one currency, decision, channel or transaction type"
)
GROUPS: Final = {
    "day": "strftime(event_time, '%Y-%m-%d')",
    "hour": "strftime(event_time, '%Y-%m-%dT%H:00:00Z')",
    **{
        name: name
        for name in (
            "decision",
            "currency",
            "channel",
            "transaction_type",
            "merchant_category",
            "merchant_country",
            "model_version",
        )
    },
}
"""What totals can be by."""
FILTERS: Final = frozenset({"decision", "currency", "channel", "transaction_type", "merchant_country"})


class Filter(Protocol):
    """Which transactions are asked for: event times in `[from_ms, to_ms)`."""

    @property
    def from_ms(self) -> int | None: ...  # noqa: D102
    @property
    def to_ms(self) -> int | None: ...  # noqa: D102
    @property
    def equal(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def min_score(self) -> float | None: ...  # noqa: D102


def totals_sql(by: Sequence[str], which: Filter) -> tuple[str, list[Any]]:
    """The question for totals by columns and currency, and its values behind the list of files."""
    where, values = _conditions(which)
    groups = [f"{GROUPS[name]} as {_quoted(name)}" for name in by]
    keys = ", ".join(str(n) for n in range(1, len(by) + 2))
    sql = (
        f"select {', '.join([*groups, 'currency as of_currency'])}, count(*) as transactions, "  # noqa: S608
        "count(distinct customer_id) as customers, sum(amount_minor) as amount_minor, "
        "coalesce(sum(amount_minor) filter (where credit), 0) as credit_minor, "
        "count(*) filter (where decision <> 'allow') as flagged, "
        "count(*) filter (where decision = 'block') as blocked, avg(score) as score_mean "
        f"from read_parquet(?, hive_partitioning=false) where true {_and(where)} "
        # One more than an answer has: so it is known that there are more.
        f"group by {keys} order by {keys} nulls last limit {MOST_GROUPS + 1}"
    )
    return sql, values


def totals_json(
    cursor: duckdb.DuckDBPyConnection, sql: str, values: Sequence[Any], by: Sequence[str]
) -> bytes | None:
    """Ask; a JSON array of groups in the order of the columns, `None` where there are too many."""
    result = cursor.execute(sql, values)
    names = ["currency", *(column[0] for column in result.description[len(by) + 1 :])]
    rows = result.fetchall()
    if len(rows) > MOST_GROUPS:
        return None
    groups = []
    for row in rows:
        figures = dict(zip(names, row[len(by) :], strict=True))
        for name in ("amount_minor", "credit_minor"):
            figures[name] = _exact(figures[name])
        groups.append({"keys": dict(zip(by, row[: len(by)], strict=True)), **figures})
    return orjson.dumps(groups)


def _exact(number: int) -> int | orjson.Fragment:
    """A whole number as JSON, whatever its length: orjson itself writes 64 bits and fails on the next.

    >>> orjson.dumps([_exact(7), _exact(-(10**20))])
    b'[7,-100000000000000000000]'
    """
    return number if -(2**63) <= number < 2**64 else orjson.Fragment(str(number))


def equal(which: Filter) -> list[tuple[str, Any]]:
    """Columns and the values they are to have."""
    for name in which.equal:
        if name not in FILTERS:
            raise KeyError(name)
    return list(which.equal.items())


def _conditions(which: Filter) -> tuple[list[str], list[Any]]:
    where, values = [], list[Any]()
    for bound, test in ((which.from_ms, ">="), (which.to_ms, "<")):
        if bound is not None:
            where.append(f"event_time {test} make_timestamptz(?::bigint * 1000)")
            values.append(bound)
    for name, value in equal(which):
        where.append(f"{_quoted(name)} = ?")
        values.append(value)
    if which.min_score is not None:
        where.append("score >= ?")
        values.append(which.min_score)
    return where, values


def _and(conditions: Sequence[str]) -> str:
    return "".join(f" and {condition}" for condition in conditions)


def _quoted(name: str) -> str:
    return f'"{name}"'
