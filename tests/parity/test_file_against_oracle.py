"""Every feature of a real file's transactions against the naive oracle.

    TIDEGATE_TEST_DATA=sparkov_transactions.parquet \
    TIDEGATE_TEST_MAPPING=docs/examples/sparkov_transactions.yaml \
    pytest -m long -s tests/parity/test_file_against_oracle.py

compares 200,000 rows (`TIDEGATE_TEST_ROWS`) in about half an hour: the oracle is slow on purpose.
"""

import os
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest

from features.catalogue import FEATURES
from features.kernels import ACCEPTED
from infra.intake import Intake
from infra.mapping import Mapping
from infra.row_batches import to_rows
from models.vectors import VectorReplay
from schemas.transaction import Transaction
from tests.parity.oracle import is_duplicate, naive_features
from tests.parity.values import differences

DATA, MAPPING = os.environ.get("TIDEGATE_TEST_DATA"), os.environ.get("TIDEGATE_TEST_MAPPING")
ROWS = int(os.environ.get("TIDEGATE_TEST_ROWS", "200000"))
_SHOWN = 20_000


@pytest.mark.long
@pytest.mark.skipif(
    not (DATA and MAPPING), reason="set TIDEGATE_TEST_DATA and TIDEGATE_TEST_MAPPING to files"
)
def test_every_feature_of_a_file_equals_the_oracle(engine) -> None:
    mapping, path = Mapping.load(Path(str(MAPPING))), Path(str(DATA))
    replay, compared = VectorReplay(engine), 0
    arrivals: defaultdict[str, list[Transaction]] = defaultdict(list)
    with Intake(path, mapping, limit=ROWS) as quick, Intake(path, mapping, limit=ROWS) as slow:
        batch = []
        # Read twice: the engine's rows as `features compute` reads them, the oracle's by the schema alone.
        for event, plain in zip(slow, chain.from_iterable(quick.plain()), strict=True):
            batch.append((event.transaction, plain))
            if len(batch) < 1000 and slow.account.accepted < ROWS:
                continue
            blocks = list(replay.feed(to_rows([p for _, p in batch], labels=True)))
            rows = [row for block in blocks for row in block.features.X]
            statuses = [status for block in blocks for status in block.features.status.tolist()]
            for (transaction, _), row, status in zip(batch, rows, statuses, strict=True):
                past = arrivals[transaction.customer_id]
                assert (status == ACCEPTED) != is_duplicate(past, transaction)
                expected = naive_features(FEATURES, past, transaction, transaction.event_time_ms)
                assert differences(FEATURES, row, expected) == [], transaction.transaction_id
                past.append(transaction)
                compared += 1
            batch = []
            if compared % _SHOWN == 0:
                print(f"{compared:,} rows equal", flush=True)
    assert compared == ROWS
    print(f"{compared:,} rows, {compared * len(FEATURES):,} values equal")
