import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.arena import HistoryArena
from features.engine import Engine
from features.entities import ENTITY_FEATURES
from features.record import LABEL_KIND, label_record, to_records
from features.tiles import Entities
from models.replay import replay_chunks
from models.vectors import NO_LABEL, Rows, VectorReplay, label_code
from schemas.fields import from_epoch_ms
from schemas.label import Label
from schemas.transaction import Transaction

T0 = 1_767_225_600_000
HOUR_MS = 3_600_000

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
