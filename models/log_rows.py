"""A log of messages as rows: transactions with what became known of each, as a file of them would have it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from features.attributes import attribute_values
from features.engine import Engine
from features.record import to_records
from models.vectors import NO_LABEL, Rows, in_time_order, label_code
from schemas.label import Label
from schemas.transaction import Transaction
from schemas.wire import WireTransaction

_BATCH = 2_000


def rows_of_messages(messages: Iterable[Transaction | WireTransaction | Label], engine: Engine) -> Rows:
    """Transactions and labels, in any order, as rows.

    Of several labels of a transaction the newest counts, since when no other has said the contrary.
    """
    labels: list[tuple[str, Label]] = []
    told: dict[str, Label] = {}
    closed_ms: dict[str, int] = {}

    def transactions() -> Iterator[Transaction | WireTransaction]:
        for message in messages:
            if not isinstance(message, Label):
                yield message
            elif message.label == "account_closed":
                closed_ms.setdefault(message.customer_id, message.label_time_ms)
            elif message.transaction_id is not None:
                labels.append((message.transaction_id, message))

    rows = in_time_order(_batches(transactions(), engine))
    for transaction_id, label in sorted(labels, key=lambda one: one[1].label_time_ms):
        before = told.get(transaction_id)
        if before is None or before.label != label.label:
            told[transaction_id] = label
    for row, transaction_id in enumerate(rows.transaction_ids):
        if (newest := told.get(transaction_id)) is not None:
            rows.labels[row], rows.label_time_ms[row] = label_code(newest.label), newest.label_time_ms
    return replace(rows, closed_ms=closed_ms)


def _batches(transactions: Iterator[Transaction | WireTransaction], engine: Engine) -> Iterator[Rows]:
    while batch := list(islice(transactions, _BATCH)):
        yield Rows(
            [t.transaction_id for t in batch],
            [t.customer_id for t in batch],
            to_records(batch, [t.amount_minor for t in batch]),
            np.full(len(batch), NO_LABEL, dtype=np.int8),
            np.zeros(len(batch), dtype=np.int64),
            attribute_values(engine.attributes, batch),
        )
