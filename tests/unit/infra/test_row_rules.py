"""Labels and rows left out on purpose."""

import pytest

from infra.row_mapper import RowLabel
from tests.unit.infra.mappings import map_row, mapping

DAY_MS = 86_400_000
EVENT_MS = 1_772_359_200_000  # 2026-03-01T10:00:00Z


@pytest.mark.parametrize(
    ("rule", "cell", "skipped"),
    [
        ("{column: a, equals: test}", "test", True),
        ("{column: a, equals: [test, 1]}", 1.0, True),
        ("{column: a, equals: test}", "live", False),
        ("{column: a, equals: test}", None, False),
        ("{column: a, not_equals: posted}", "pending", True),
        ("{column: a, not_equals: posted}", "posted", False),
        ("{column: a, not_equals: posted}", "", False),
        ("{column: a, empty: true}", "", True),
        ("{column: a, empty: true}", "x", False),
        ("{column: a, empty: false}", "x", True),
        ("{column: a, starts_with: C}", "C536", True),
        ("{column: a, starts_with: C}", "536", False),
        ("{column: a, at_most: 0}", "0.00", True),
        ("{column: a, at_most: 0}", 0.01, False),
        ("{column: a, at_most: 0}", "free", False),
        ("{column: a, at_least: 10}", 10, True),
        ("{column: a, at_least: 10}", 9.99, False),
        ("[{column: a, equals: x}, {column: a, equals: y}]", "y", True),
    ],
)
def test_rows_are_skipped_on_purpose(rule: str, cell: object, skipped: bool) -> None:
    row = map_row(mapping(skip_if=rule), a=cell)
    assert row.skipped == skipped
    assert (row.message is None) == skipped
    assert row.problem is None


def test_a_skipped_row_is_not_refused_too() -> None:
    row = map_row(mapping(skip_if="{column: a, empty: true}"), a=None, amount="bad")
    assert row.skipped
    assert row.problem is None


def test_a_label_is_known_a_delay_after_the_event() -> None:
    row = map_row(mapping(label="{column: a, fraud: [1, 'yes', true], delay: 2d}"), a="1")
    assert row.label == RowLabel("fraud", EVENT_MS + 2 * DAY_MS)


def test_a_week_is_the_delay_where_none_is_given() -> None:
    row = map_row(mapping(label="{column: a, fraud: 1}"), a=0)
    assert row.label == RowLabel("genuine", EVENT_MS + 7 * DAY_MS)


def test_a_label_has_its_own_time_but_never_before_its_event() -> None:
    rules = mapping(label="{column: a, fraud: 1, time: known}")
    assert map_row(rules, a=1, known="2026-03-04").label == RowLabel(
        "fraud", EVENT_MS + 2 * DAY_MS + DAY_MS // 24 * 14
    )
    assert map_row(rules, a=1, known="2026-03-01").label == RowLabel("fraud", EVENT_MS)
    assert map_row(rules, a=1, known=None).label == RowLabel("fraud", EVENT_MS + 7 * DAY_MS)
    assert map_row(rules, a=1, known="soon").problem == (
        "label.time: column known is not a time of the format 'iso'"
    )


def test_what_says_nothing_is_no_label() -> None:
    assert map_row(mapping(label="{column: a, fraud: 1}"), a="").label is None
    listed = mapping(label="{column: a, fraud: F, genuine: G}")
    assert [getattr(map_row(listed, a=cell).label, "value", None) for cell in "FGX"] == [
        "fraud",
        "genuine",
        None,
    ]
    only_frauds = mapping(label="{column: a, fraud: 1, genuine: []}")
    assert map_row(only_frauds, a=0).label is None
