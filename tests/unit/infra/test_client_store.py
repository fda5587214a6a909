import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from infra import client_store
from infra.client_store import ClientStore
from schemas.errors import ConfigError


class Clock:
    now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path, clock) -> ClientStore:
    return ClientStore(tmp_path, now=clock, check_s=0)


async def test_a_client_is_known_by_its_secret_only(store):
    client, secret = store.add("Back office", "retail", ["inference"])
    other, others = store.add("Branch", "retail", ["inference"])
    assert await store.authenticate(client.client_id, secret) == client
    for name, guess in (
        (client.client_id, others),
        (client.client_id, ""),
        (client.client_id, secret[:-1]),
        (client.client_id, secret + "\x00"),
        (other.client_id, secret),
        ("nobody", secret),
    ):
        assert await store.authenticate(name, guess) is None


async def test_a_right_secret_is_looked_at_slowly_once_and_a_wrong_one_each_time(store, clock, monkeypatch):
    client, secret = store.add("Back office", "retail", ["inference"])
    looked = []
    slowly = client_store._matching
    monkeypatch.setattr(client_store, "_matching", lambda *a: looked.append(a[0]) or slowly(*a))
    for given, right in ((secret, True), (secret, True), ("wrong", False), ("wrong", False), (secret, True)):
        assert (await store.authenticate(client.client_id, given) is not None) is right
    assert looked == [secret, "wrong", "wrong"]
    # What is remembered is a secret of this client, while it may be used.
    assert await store.authenticate("nobody", secret) is None
    store.rotate(client.client_id, overlap_s=60)
    assert await store.authenticate(client.client_id, secret)
    clock.now += timedelta(seconds=60)
    assert await store.authenticate(client.client_id, secret) is None
    store.revoke(client.client_id)
    assert await store.authenticate(client.client_id, secret) is None


def test_only_a_slow_hash_of_the_secret_is_kept(store):
    client, secret = store.add("Back office", "retail", ["inference"])
    text = store.path.read_text()
    assert secret not in text
    assert client.secrets[0].hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


async def test_a_rotated_secret_works_on_for_the_overlap(store, clock):
    client, first = store.add("Back office", "retail", ["inference"])
    second = store.rotate(client.client_id, overlap_s=3600)
    assert await store.authenticate(client.client_id, first)
    assert await store.authenticate(client.client_id, second)
    clock.now += timedelta(seconds=3600)
    assert await store.authenticate(client.client_id, first) is None
    assert await store.authenticate(client.client_id, second)


async def test_at_most_two_secrets_work(store):
    client, first = store.add("Back office", "retail", ["inference"])
    second = store.rotate(client.client_id, overlap_s=3600)
    third = store.rotate(client.client_id, overlap_s=3600)
    works = [await store.authenticate(client.client_id, s) is not None for s in (first, second, third)]
    assert works == [False, True, True]


async def test_a_revoked_client_is_nobody_in_every_process(store, tmp_path):
    client, secret = store.add("Back office", "retail", ["inference"])
    other_process = ClientStore(tmp_path, check_s=0)
    assert other_process.get(client.client_id) is not None
    store.revoke(client.client_id)
    assert other_process.get(client.client_id) is None
    assert await other_process.authenticate(client.client_id, secret) is None
    assert [c.revoked_at is not None for c in other_process.all()] == [True]
    for change in (store.revoke, lambda name: store.rotate(name, overlap_s=0)):
        with pytest.raises(ConfigError, match="there is no client"):
            change(client.client_id)


def test_clients_added_at_the_same_time_are_all_kept(tmp_path):
    def add(number: int) -> str:
        return ClientStore(tmp_path).add(f"client {number}", "retail", ["inference"])[0].client_id

    with ThreadPoolExecutor(4) as pool:
        added = set(pool.map(add, range(8)))
    assert {client.client_id for client in ClientStore(tmp_path).all()} == added
