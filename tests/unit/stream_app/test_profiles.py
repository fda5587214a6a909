import orjson
import pytest

from models.model_set import Models
from schemas.topics import CUSTOMERS
from tests.streaming import Stream

C = CUSTOMERS.name


async def test_profile_is_kept_without_contact_data(stream: Stream) -> None:
    stream.kafka.put(
        C,
        0,
        {
            "customer_id": "c-1",
            "country": "FR",
            "income": "32000.50",
            "birth_year": 1980,
            "name": "Ada Lovelace",
            "email": "ada@example.org",
            "phone": "+44 20 7946 0000",
            "address": "12 St James's Square",
            "favourite_colour": "green",
        },
        b"c-1",
    )
    await stream.start()
    await stream.run()

    state = await stream.store.read("c-1")
    assert state is not None
    assert state.profile is not None
    kept = orjson.loads(state.profile)
    assert kept.keys() == {"schema_version", "customer_id", "country", "income", "birth_year"}
    assert stream.observer.outcomes["profiled"] == 1


async def test_latest_profile_counts_and_null_takes_it_back(stream: Stream) -> None:
    for country in ("FR", "DE"):
        stream.kafka.put(C, 0, {"customer_id": "c-1", "country": country}, b"c-1")
    stream.kafka.put(C, 0, {"customer_id": "c-2", "country": "FR"}, b"c-2")
    stream.kafka.put(C, 0, None, b"c-2")
    await stream.start()
    await stream.run()

    profiles = stream.store.state()[0][7]
    assert profiles.keys() == {"c-1"}
    assert b'"DE"' in profiles["c-1"]
    stream.kafka.put(C, 0, None, b"c-1")
    await stream.run()
    assert stream.store.state()[0][7] == {}
    assert stream.dead == []


@pytest.mark.parametrize("key", [None, b""])
async def test_null_without_a_key_is_a_dead_letter(stream: Stream, key: bytes | None) -> None:
    stream.kafka.put(C, 0, None, key)
    stream.kafka.put(C, 0, {"customer_id": "c-1"}, b"c-1")
    await stream.start()
    await stream.run()

    assert stream.reasons == ["empty"]
    assert stream.store.state()[0][7].keys() == {"c-1"}


async def test_misplaced_profiles_and_tombstones_are_forwarded(models: Models) -> None:
    stream = Stream(models, partitions=4, misplaced=True)
    for n in range(8):
        stream.kafka.put(C, 2, {"customer_id": f"customer-{n}"}, b"x")
    stream.kafka.put(C, 2, None, b"customer-1")
    await stream.start()
    await stream.run()

    kept = {c for p in stream.store.state().values() for c in p[7]}
    assert kept == {f"customer-{n}" for n in range(8) if n != 1}
