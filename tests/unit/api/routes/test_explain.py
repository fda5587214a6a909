"""Explanations of what the stream scored with more than a customer's history."""

from models.model_set import Models
from schemas.fields import from_epoch_ms
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from tests.serving import serving
from tests.streaming import START_MS, Stream, label, transaction

DAY_MS = 86_400_000


async def test_merchants_and_the_like_are_those_of_the_transaction(entity_models: Models) -> None:
    stream = Stream(entity_models)
    for number in range(40):
        sent = transaction(
            number,
            customer=f"c-{number % 4}",
            event_time=START_MS + number * DAY_MS // 2,
            merchant_id="m-1",
            device_id="d-1",
            counterparty_id="p-1",
        )
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
        if number == 5:
            await stream.start()
            await stream.run()
            stream.kafka.put(LABELS.name, 0, label("t-1", customer="c-1", at_ms=START_MS + 3 * DAY_MS))
            await stream.run()
    await stream.run()
    scores = {m["transaction_id"]: m for m in stream.kafka.messages(FRAUD_SCORES.name)}
    async with serving(stream.store, entity_models, from_epoch_ms(START_MS + 40 * DAY_MS)) as client:
        for number in (30, 36, 39):
            asked = {"customer_id": f"c-{number % 4}", "transaction_id": f"t-{number}", "most": 200}
            found = (await client.get("/inference/explain", params=asked)).json()
            assert found["score"] == found["published"] == scores[f"t-{number}"]["score"]
            assert found["not_kept"] == []
            known = {c["feature"]: c["value"] for c in found["contributions"]}
            assert known.get("merchant_txn_count_30d", 20.0) > 10


async def test_what_only_the_message_said_is_named(attributed: Models) -> None:
    stream = Stream(attributed)
    for number in range(8):
        sent = transaction(number) | {"attributes": {"risk": 6.0}, "balance_after": "10.00"}
        stream.kafka.put(TRANSACTIONS.name, 0, sent)
    await stream.start()
    await stream.run()
    async with serving(stream.store, attributed, from_epoch_ms(START_MS + 40 * DAY_MS)) as client:
        asked = {"customer_id": "c-1", "transaction_id": "t-7"}
        found = (await client.get("/inference/explain", params=asked)).json()
    assert found["not_kept"] == ["balance_after", "amount_to_balance", "attribute_risk"]
    assert found["score"] < found["published"]
