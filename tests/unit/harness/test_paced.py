from itertools import islice

from harness.paced import PacedBank, _messages, _named
from infra.partitioning import partition_for
from schemas.wire import read_transaction

BANK = PacedBank(customers=20, days=7, seed=1, partitions=4)


def test_bank_begins_again_as_many_days_later_with_ids_of_the_run() -> None:
    messages = _messages(BANK)
    first = next(messages)
    lap = [first]
    for message in messages:
        if message[3] == first[3] + 7 * 86_400_000:
            break
        lap.append(message)
    assert len(lap) > 100
    assert message[:3] == first[:3]

    _, key, value = _named(message, "run", 12)
    transaction, _ = read_transaction(value)
    assert transaction.transaction_id == "run-12"
    assert transaction.event_time_ms == first[3] + 7 * 86_400_000
    assert key.decode() == transaction.customer_id


def test_messages_go_where_their_customer_belongs() -> None:
    for partition, key, _, _ in islice(_messages(BANK), 50):
        assert partition == partition_for(key.decode(), 4)


def test_every_message_is_plain_for_the_worker() -> None:
    for number, message in enumerate(islice(_messages(BANK), 200)):
        assert read_transaction(_named(message, "r", number)[2]) is not None
