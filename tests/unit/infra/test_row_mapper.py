"""Rows in batches: numbers, order, labels, and that no row ever raises."""

from hypothesis import given
from hypothesis import strategies as st

from infra.row_mapper import label_message
from schemas.fields import to_epoch_ms
from schemas.label import Label
from schemas.parse import parse_message
from schemas.transaction import Transaction
from tests.unit.infra.mappings import map_row, mapping

DAY_MS = 86_400_000
EVENT_MS = 1_772_359_200_000  # 2026-03-01T10:00:00Z

CELLS = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.datetimes(),
    st.dates(),
    st.times(),
    # Parquet has no decimals that are no numbers.
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from(["4111111111111111", "1e400", "2026-03-01T10:00:00Z", "\udcff", "EUR", "0", "-1"]),
)


def columns(amounts: list[object]) -> dict[str, list[object]]:
    n = len(amounts)
    return {
        "id": [f"t{i}" for i in range(n)],
        "customer": ["c1"] * n,
        "ts": ["2026-03-01T10:00:00Z"] * n,
        "amount": amounts,
    }


def test_rows_keep_order_and_numbers_around_bad_ones() -> None:
    rows = list(mapping().rows(columns(["1", "x", "3", None]), first_row=11))
    assert [row.row_number for row in rows] == [11, 12, 13, 14]
    assert [row.problem for row in rows] == [
        None, "amount: column amount is not a number", None, "amount: column amount is empty",
    ]  # fmt: skip
    assert [row.transaction.transaction_id for row in rows if row.transaction] == ["t0", "t2"]


def test_row_numbers_as_ids_go_on_in_the_next_batch() -> None:
    rules = mapping(transaction_id="{row_number: true}")
    (row,) = rules.rows(columns(["1"]), first_row=2049)
    assert row.message is not None
    assert row.message["transaction_id"] == "2049"


def test_cells_that_do_not_come_again_stop_being_remembered_and_mean_the_same() -> None:
    rules, n = mapping(), 3000
    for batch in range(8):
        cells = columns([f"{i}.{batch}" for i in range(1, n + 1)])
        cells["id"] = [f"t{batch}-{i}" for i in range(n)]
        rows = list(rules.rows(cells, first_row=1 + batch * n))
        assert [row.transaction.transaction_id for row in rows if row.transaction] == cells["id"]
        assert [row.amount_minor for row in rows] == [100 * i + 10 * batch for i in range(1, n + 1)]
    remembered = {
        step.name: step.convert.cache_info()
        for step in rules._mapper._plan
        if hasattr(step.convert, "cache_info")
    }
    # From the fifth batch on they are not put in any more.
    assert remembered["transaction_id"].misses == 4 * n
    assert remembered["customer_id"].hits == 8 * n - 1


def test_rows_broken_in_the_file_are_refused_and_never_skipped() -> None:
    rules = mapping(skip_if="{column: amount, empty: true}")
    rows = list(rules.rows(columns([None, None, "1"]), broken={0: "the row has 2 cells"}))
    assert [(row.problem, row.skipped) for row in rows] == [
        ("the row has 2 cells", False),
        (None, True),
        (None, False),
    ]


def test_a_message_is_what_the_worker_would_accept() -> None:
    row = map_row(mapping())
    assert row.transaction == parse_message(Transaction, row.raw)


def test_no_batch_no_rows() -> None:
    assert list(mapping().rows(columns([]))) == []


@given(cells=st.lists(st.fixed_dictionaries(dict.fromkeys("abcdefgh", CELLS)), max_size=6))
def test_no_cell_whatsoever_raises(cells: list[dict[str, object]]) -> None:
    rules = mapping(
        transaction_id="a",
        customer_id="{columns: [a, b]}",
        event_time="{column: c, timezone: Europe/Prague}",
        amount="{product: [d, e], absolute: true, scale: 0.01}",
        currency="{column: f, case: upper, default: EUR}",
        latitude="{column: g, split: ',', part: 0, range: [-90, 90]}",
        direction="{sign_of: d, positive: credit, negative: debit}",
        merchant_category="{column: h, zero_pad: 4}",
        card_present="h",
        account_id="{column: g, pseudonym: salt}",
        balance_before="d",
        balance_after="{first_of: [e, d]}",
        attributes="{one: g, two: {column: h, scale: 2, default: 0}, three: {columns: [a, g], join: '/'}}",
        label="{column: h, fraud: 1, time: {column: c, format: epoch_s}}",
        skip_if="[{column: h, at_most: 3}, {column: g, starts_with: x}]",
    )
    rows = list(rules.rows({name: [row[name] for row in cells] for name in "abcdefgh"}))
    assert len(rows) == len(cells)
    for row in rows:
        outcomes = (row.skipped, row.problem is not None, row.transaction is not None)
        assert sum(outcomes) == 1


def test_label_messages_are_valid() -> None:
    row = map_row(mapping(label="{column: a, fraud: 1}"), a=1)
    assert row.transaction is not None
    assert row.label is not None
    label = parse_message(Label, label_message(row.transaction, row.label))
    assert (label.transaction_id, label.customer_id, label.label) == ("t1", "c1", "fraud")
    assert to_epoch_ms(label.label_time) == EVENT_MS + 7 * DAY_MS


def test_a_closed_account_is_told_by_its_time_and_an_empty_cell_tells_nothing():
    rules = mapping(account_closed="{column: left, format: '%d.%m.%Y', timezone: Europe/Berlin}")
    assert map_row(rules, left="02.03.2026").closed_ms == 1_772_406_000_000
    assert map_row(rules, left="").closed_ms is None
    refused = map_row(rules, left="soon")
    assert refused.transaction is None
    assert "account_closed: column left" in refused.problem
    assert map_row(mapping()).closed_ms is None
