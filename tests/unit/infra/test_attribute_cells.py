"""Cells of attributes: the quick way and the exact one make the same of every number."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from infra.attribute_cells import as_number, rounded, usual
from infra.mapping import Mapping

NUMBERS = (
    st.integers() | st.floats() | st.decimals(allow_nan=False, allow_infinity=False, places=11).map(float)
)


def assert_exact_if_usual(cell: float | str, texts: bool) -> None:
    quick = usual(cell, texts)
    if quick is not None:
        number = as_number(cell, ".")
        assert isinstance(number, Decimal)
        exact = rounded(number)
        assert (quick, type(quick)) == (exact, type(exact))


@given(NUMBERS)
@example(0.12345678905)
@example(-0.0)
@example(9_999_999_999.5)
@example(2.0**53)
@example(1e-9)
def test_a_usual_number_is_what_the_exact_way_makes_of_it(cell: float) -> None:
    assert_exact_if_usual(cell, False)


@given(st.from_regex(r"-?[0-9]{1,11}(\.[0-9]{0,22})?", fullmatch=True) | st.text(max_size=6))
@example("-0")
@example("1.00000000004")
@example("0.12345678905")
@example("4111111111111111.5")
@example("00012")
@example("\u0661\u0662")
def test_a_usual_text_is_what_the_exact_way_makes_of_it(cell: str) -> None:
    assert_exact_if_usual(cell, True)
    assert usual(cell, False) is None


def test_texts_of_everyday_numbers_are_usual_and_others_are_not() -> None:
    assert [usual(cell, True) for cell in ("3", "-1.3598071336738", "0.50")] == [3, -1.359807134, 0.5]
    for cell in ("", " 1", "1,5", "1.", "+1", "1e5", "4111111111111111", "x"):
        assert usual(cell, True) is None


@given(st.integers(-(10**15), 10**15) | st.floats(1e-6, 1e9) | st.floats(-1e9, -1e-6))
def test_numbers_of_everyday_sizes_are_usual(cell: float) -> None:
    assert usual(cell, False) is not None


@pytest.mark.parametrize("cell", [True, "1", None, float("nan"), float("inf"), 2**60, 1e300, 1e-300, b"1"])
def test_what_is_no_usual_number_is_left_to_the_exact_way(cell: object) -> None:
    assert usual(cell, False) is None


def test_ten_digits_are_kept_and_ties_go_to_the_even_digit_from_any_kind_of_file() -> None:
    cells = [0.12345678905, 0.12345678915, 1 / 3, 12345.678901234]
    expected = [0.123456789, 0.1234567892, 0.3333333333, 12345.6789]
    assert [usual(cell, False) for cell in cells] == expected
    assert [rounded(Decimal(repr(cell))) for cell in cells] == expected


@pytest.mark.parametrize(
    ("rule", "cell", "said"),
    [
        ("a", 2.0, 2),
        ("a", "2.0", 2),
        ("{column: a, scale: 0.5}", 3.0, 1.5),
        ("{column: a, scale: 0.5}", "3.0", 1.5),
        ("{column: a, prefix: x}", 2.0, "x2"),
        ("{column: a, range: [0, 1]}", 2.0, None),
        ("{column: a, values: {2: two}}", 2.0, "two"),
        ("{column: a, default: none}", float("nan"), "none"),
    ],
)
def test_a_rule_with_options_goes_the_exact_way(rule: str, cell: float, said: object) -> None:
    written = f"""
transaction_id: id
customer_id: id
event_time: {{column: t, format: epoch_s}}
amount: {{constant: 1}}
currency: {{constant: EUR}}
attributes: {{x: {rule}}}
"""
    columns = {"id": ["i-1"], "t": [1_700_000_000], "a": [cell]}
    (row,) = Mapping.parse(written).rows(columns, 1, {})
    assert row.message is not None, row.problem
    assert row.message.get("attributes", {}) == ({} if said is None else {"x": said})


def test_cells_that_the_mapping_says_mean_nothing_are_left_out() -> None:
    written = """
transaction_id: id
customer_id: id
event_time: {column: t, format: epoch_s}
amount: {constant: 1}
currency: {constant: EUR}
empty: [9999]
attributes: [a]
"""
    columns = {"id": ["i-1", "i-2"], "t": [1_700_000_000, 1_700_000_001], "a": [9999.0, 1.0]}
    rows = list(Mapping.parse(written).rows(columns, 1, {}))
    assert [row.message and row.message.get("attributes") for row in rows] == [None, {"a": 1}]
