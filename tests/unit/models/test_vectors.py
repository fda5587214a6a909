import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import arena as arena_module
from features import engine as engine_module
from features import labels as labels_module
from features import retention as retention_module
from features.arena import HistoryArena
from features.engine import Engine
from features.entity_counts import Entities
from features.entity_features import ENTITY_FEATURES, entity_features
from features.record import LABEL_KIND, label_record, to_records
from models import vectors as vectors_module
from models.vectors import NO_LABEL, Rows, VectorReplay, in_time_order, label_code
from schemas.fields import from_epoch_ms
from schemas.label import Label
from schemas.transaction import Transaction
from tests.replay import replay_chunks
from tests.scoring import at, corrected

Told = Callable[[], tuple[list[Transaction], dict[int, float]]]
T0 = 1_767_225_600_000
HOUR_MS = 3_600_000
FEW = 128

# (hours since the event before, customer, days until it is labelled)
events = st.lists(
    st.tuples(st.integers(-48, 96), st.integers(0, 2), st.sampled_from([None, 0, 1, 7, 200])), max_size=40
)


def made(drawn: list[tuple[int, int, int | None]]) -> tuple[list[Transaction], list[Label | None]]:
    transactions: list[Transaction] = []
    labels: list[Label | None] = []
    time_ms = T0
    for number, (hours, customer, days) in enumerate(drawn):
        time_ms += hours * HOUR_MS
        transactions.append(
            Transaction(
                # Every fifth id comes again.
                transaction_id=f"t{number - number % 5 // 4}",
                customer_id=f"c{customer}",
                event_time=from_epoch_ms(time_ms),
                amount=10 + number,
                currency="EUR",
            )
        )
        known = None
        if days is not None:
            known = Label(
                customer_id=f"c{customer}",
                transaction_id=transactions[-1].transaction_id,
                label="fraud" if number % 3 else "genuine",
                label_time=from_epoch_ms(time_ms + days * 24 * HOUR_MS),
            )
        labels.append(known)
    return transactions, labels


def rows_of(transactions: list[Transaction], labels: list[Label | None]) -> Rows:
    return Rows(
        [t.transaction_id for t in transactions],
        [t.customer_id for t in transactions],
        to_records(transactions, [t.amount_minor for t in transactions]),
        np.array([label_code(label.label) if label else NO_LABEL for label in labels], dtype=np.int8),
        np.array([label.label_time_ms if label else 0 for label in labels], dtype=np.int64),
    )


def piece(rows: Rows, begin: int, end: int) -> Rows:
    return Rows(
        rows.transaction_ids[begin:end],
        rows.customer_ids[begin:end],
        rows.records[begin:end],
        rows.labels[begin:end],
        rows.label_time_ms[begin:end],
    )


@given(events, st.lists(st.integers(1, 12), max_size=10))
@settings(max_examples=100)
def test_vectors_and_histories_are_those_of_a_log_read_event_by_event(
    engine: Engine, drawn: list[tuple[int, int, int | None]], sizes: list[int]
) -> None:
    transactions, labels = made(drawn)
    rows = rows_of(transactions, labels)
    replay = VectorReplay(engine)
    found, cuts = [], [0]
    for size in sizes:
        cuts.append(min(cuts[-1] + size, len(transactions)))
    cuts.append(len(transactions))
    for begin, end in itertools.pairwise(cuts):
        found += list(replay.feed(piece(rows, begin, end)))
    replay.finish()

    # The plain way: before each event the labels that are due, as `publish` puts them into the log.
    arena = HistoryArena()
    waiting: list[tuple[int, int, Label]] = []
    vectors, put = [], 0
    for number, transaction in enumerate(transactions):
        put += naive_labels(arena, waiting, transaction.event_time_ms)
        ((_, one),) = replay_chunks([transaction], engine, arena)
        vectors.append((one.X[0].tobytes(), int(one.status[0])))
        known = labels[number]
        if known is not None:
            waiting.append((known.label_time_ms, number, known))
    put += naive_labels(arena, waiting, None)

    assert [t for block in found for t in block.transaction_ids] == [t.transaction_id for t in transactions]
    assert [
        (row.tobytes(), int(status))
        for block in found
        for row, status in zip(block.features.X, block.features.status, strict=True)
    ] == vectors
    for customer in {t.customer_id for t in transactions}:
        mine, plain = (
            np.sort(a.records(a.slot(customer)), order=["time_ms", "kind", "transaction", "label"])
            for a in (replay.arena, arena)
        )
        assert mine.tobytes() == plain.tobytes()
    assert replay.labels_put + replay.labels_unknown == sum(label is not None for label in labels)
    held = sum(
        int((arena.records(arena.slot(c))["kind"] == LABEL_KIND).sum())
        for c in {t.customer_id for t in transactions}
    )
    assert held == put


def naive_labels(arena: HistoryArena, waiting: list[tuple[int, int, Label]], now_ms: int | None) -> int:
    """Put in the labels that are due, oldest first; returns how many were new."""
    put = 0
    for due in sorted(w for w in waiting if now_ms is None or w[0] <= now_ms):
        waiting.remove(due)
        record = label_record(due[2])
        slot = arena.slot(due[2].customer_id)
        history = arena.records(slot)
        seen = {(int(r["transaction"]), int(r["label"])) for r in history if r["kind"] == LABEL_KIND}
        of_it = [r for r in history if r["kind"] == 0 and r["transaction"] == record["transaction"][0]]
        if of_it and (int(record["transaction"][0]), int(record["label"][0])) not in seen:
            arena.insert(slot, record)
            put += 1
    return put


def test_a_label_known_after_the_last_event_still_enters_the_history(engine: Engine) -> None:
    transactions, labels = made([(0, 0, 7), (1, 0, None)])
    replay = VectorReplay(engine)
    list(replay.feed(rows_of(transactions, labels)))
    assert replay.labels_put == 0
    replay.finish()
    assert replay.labels_put == 1
    assert replay.arena.records(replay.arena.slot("c0"))["kind"].tolist() == [0, 0, LABEL_KIND]


def test_label_of_a_transaction_no_longer_kept_is_counted_as_unknown(engine: Engine) -> None:
    transactions, labels = made([(0, 0, 200), (24 * 150, 0, None)])
    replay = VectorReplay(engine)
    list(replay.feed(rows_of(transactions, labels)))
    replay.finish()
    assert (replay.labels_put, replay.labels_unknown) == (0, 1)


def told_late() -> tuple[list[Transaction], dict[int, float]]:
    """A fraud of day 0 told on day 150, when its customer's history begins at day 28; and one in time."""
    log = [at(day, transaction_id=f"t-{day}", merchant_id="m-1") for day in range(0, 200, 2)]
    return log, {0: 150, 40: 199}


def told_behind_a_correction() -> tuple[list[Transaction], dict[int, float]]:
    """A fraud told on day 20, and corrected before that to have been at another merchant."""
    wrong = at(0, transaction_id="x", merchant_id="m-1")
    right = corrected(wrong, 1, merchant_id="m-2", event_time=at(1).event_time)
    days = [at(day, transaction_id=f"t-{day}", merchant_id="m-9") for day in range(2, 40)]
    ends = [at(40, merchant_id="m-1"), at(41, merchant_id="m-2")]
    return [wrong, *days[:8], right, *days[8:], *ends], {0: 20}


def told_of_what_moved_back() -> tuple[list[Transaction], dict[int, float]]:
    """A fraud corrected to an earlier day: it leaves the history before its first version does."""
    wrong = at(20, transaction_id="x", merchant_id="m-1")
    right = corrected(wrong, 1, event_time=at(1).event_time)
    days = [at(day, transaction_id=f"t-{day}", merchant_id="m-1") for day in range(22, 180, 2)]
    return [wrong, right, *days], {0: 130}


def told_behind_too_many() -> tuple[list[Transaction], dict[int, float]]:
    """Frauds told when their customer has had more events since than a history keeps, and fewer."""
    log = [at(n / 8, transaction_id=f"t-{n}", merchant_id="m-1") for n in range(FEW + 50)]
    return [*log, at(40, merchant_id="m-1")], {0: (FEW + 20) / 8, 60: 14}


@pytest.mark.parametrize(
    "told", [told_late, told_behind_a_correction, told_of_what_moved_back, told_behind_too_many]
)
def test_no_vector_and_no_unknown_label_depends_on_where_a_file_is_cut(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So many that no test waits for them.
    for module in (arena_module, engine_module, labels_module, retention_module, vectors_module):
        monkeypatch.setattr(module, "MAX_EVENTS", FEW)
    transactions, frauds = told()
    labels = [
        Label(
            customer_id=t.customer_id,
            transaction_id=t.transaction_id,
            label="fraud",
            label_time=at(frauds[n]).event_time,
        )
        if n in frauds
        else None
        for n, t in enumerate(transactions)
    ]
    rows, found = rows_of(transactions, labels), []
    engine = Engine(entities=entity_features("merchant"))
    # Behind a batch of one row: in one with its own transaction a label waits for that.
    for size in (1, 7, 20, len(rows)):
        replay, cuts = VectorReplay(engine), [0, *range(1, len(rows), size), len(rows)]
        parts = [part for cut in itertools.pairwise(cuts) for part in replay.feed(piece(rows, *cut))]
        replay.finish()
        X = np.concatenate([part.features.X for part in parts])
        found.append((X.tobytes(), replay.labels_put, replay.labels_unknown))
    assert found == [found[0]] * len(found)
    # Training on the stream of the same finds the same.
    log: list[Transaction | Label] = []
    known = sorted((label for label in labels if label), key=lambda label: label.label_time_ms)
    for transaction in transactions:
        while known and known[0].label_time_ms <= transaction.event_time_ms:
            log.append(known.pop(0))
        log.append(transaction)
    chunks = replay_chunks(log, engine, HistoryArena(), Entities(engine.entities))
    assert np.concatenate([features.X for _, features in chunks]).tobytes() == found[0][0]


@given(events, st.lists(st.integers(1, 12), max_size=10))
@settings(max_examples=60)
def test_features_of_merchants_and_devices_are_those_of_the_training_replay(
    drawn: list[tuple[int, int, int | None]], sizes: list[int]
) -> None:
    transactions, labels = made([(abs(hours), customer, days) for hours, customer, days in drawn])
    for n, label in enumerate(labels):
        at = {"merchant_id": "m-1", "device_id": "d-1"} if n % 4 else {"merchant_id": "m-2"}
        transactions[n] = transactions[n].model_copy(update={"transaction_id": f"t{n}", **at})
        labels[n] = label and label.model_copy(update={"transaction_id": f"t{n}"})
    engine = Engine(entities=ENTITY_FEATURES)
    replay = VectorReplay(engine)
    rows, found, begin = rows_of(transactions, labels), [], 0
    for size in [*sizes, len(transactions)]:
        found += list(replay.feed(piece(rows, begin, begin + size)))
        begin += size
    log: list[tuple[int, int, int, Transaction | Label]] = []
    for n, (transaction, label) in enumerate(zip(transactions, labels, strict=True)):
        log.append((transaction.event_time_ms, 1, n, transaction))
        if label is not None:
            # Never before what it is about.
            log.append(
                (label.label_time_ms, 2 * (label.label_time_ms == transaction.event_time_ms), n, label)
            )
    log.sort(key=lambda entry: entry[:3])
    messages = [message for *_, message in log]
    chunks = replay_chunks(messages, engine, HistoryArena(), Entities(ENTITY_FEATURES))
    expected = [row.tobytes() for _, features in chunks for row in features.X]
    assert [row.tobytes() for block in found for row in block.features.X] == expected


def with_attributes(number: int, values: np.ndarray) -> Rows:
    transactions = [
        Transaction(
            transaction_id=f"t{number}-{i}",
            customer_id=f"c{i % 3}",
            event_time=from_epoch_ms(T0 + (number * len(values) + i) * HOUR_MS),
            amount=1,
            currency="EUR",
        )
        for i in range(len(values))
    ]
    none = np.zeros(len(values), np.int8)
    records = to_records(transactions, [100] * len(values))
    customers = [t.customer_id for t in transactions]
    ids = [t.transaction_id for t in transactions]
    return Rows(ids, customers, records, none, none.astype(np.int64), values)


@pytest.mark.parametrize(
    ("kept_as", "expected"), [(np.float64, 16_777_217.0), (np.float32, 16_777_216.0)], ids=["64", "32"]
)
@pytest.mark.parametrize("later_first", [False, True], ids=["in order", "not in order"])
def test_attributes_of_all_batches_are_one_array_of_the_bits_asked_for(kept_as, expected, later_first):
    drawn = np.random.default_rng(3).integers(0, 9, (50, 4, 2)).astype(np.float64)
    drawn[7, 2] = 16_777_217.0, np.nan
    batches = [with_attributes(number, values) for number, values in enumerate(drawn)]
    found = in_time_order(reversed(batches) if later_first else batches, kept_as).attributes
    assert found is not None
    assert found.dtype == kept_as
    assert found[30].tolist() == pytest.approx([expected, np.nan], rel=0, nan_ok=True)
    np.testing.assert_array_equal(found, drawn.reshape(200, 2).astype(kept_as))


def test_attributes_are_not_held_twice_while_batches_come():
    plain = [with_attributes(number, np.zeros((4, 1))) for number in range(100)]

    def batches() -> Iterator[Rows]:
        for batch in plain:
            yield replace(batch, attributes=np.zeros((4, 25_000)))

    tracemalloc.start()
    try:
        rows = in_time_order(batches(), np.float32)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows.attributes is not None
    assert rows.attributes.shape == (400, 25_000)
    # It grows by a quarter in advance, and a batch is a fiftieth of it; all batches and the array were twice.
    assert most < 1.4 * rows.attributes.nbytes
