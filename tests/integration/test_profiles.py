import base64

import orjson
import pytest

from infra.contact_vault import ContactVault, LocalMasterKeys
from infra.key_ring import KeyRing
from infra.profiles import StoredProfiles
from schemas.customer import SealedContact
from schemas.errors import DependencyError, HistoryError

pytestmark = pytest.mark.integration
OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
CONTACT = {"email": "some.body@example.org"}
IDS = ["c-1", "c}:p:2", "kundé 3", "c-4"]


def vault(text: str) -> ContactVault:
    return ContactVault(LocalMasterKeys(KeyRing.of_text(text)), "tg")


@pytest.fixture
async def filled(direct):
    for number, customer in enumerate(IDS):
        sealed = await vault(OLD).seal(customer, CONTACT)
        profile = {"customer_id": customer, "country": "FR", "contact": sealed.model_dump()}
        direct.set(f"{{tg:{number % 2}}}:p:{customer}", orjson.dumps(profile))
    direct.set("{tg:0}:p:without", orjson.dumps({"customer_id": "without", "country": "FR"}))
    direct.set("{other:0}:p:c-1", b"not of this namespace")
    return direct


@pytest.fixture
async def profiles(valkey, filled):
    found = StoredProfiles(valkey.url, "tg")
    yield found
    await found.close()


async def test_rewrapped_profiles_open_with_the_new_master_key_alone(profiles, filled):
    both = vault(f"{OLD},{NEW}")
    assert await profiles.rewrap(both, "new") == {"rewrapped": 4, "already": 0, "changed": 0}
    for number, customer in enumerate(IDS):
        profile = orjson.loads(filled.get(f"{{tg:{number % 2}}}:p:{customer}"))
        assert profile["country"] == "FR"
        assert await vault(NEW).open(customer, SealedContact.model_validate(profile["contact"])) == CONTACT
    assert await profiles.rewrap(both, "new") == {"rewrapped": 0, "already": 4, "changed": 0}
    assert filled.get("{other:0}:p:c-1") == b"not of this namespace"


async def test_a_profile_that_a_worker_wrote_meanwhile_is_left_as_it_is(profiles, filled):
    both = vault(f"{OLD},{NEW}")
    rewrap = both.rewrap

    async def slow(customer_id, sealed):
        filled.set("{tg:0}:p:c-1", b"{}")
        return await rewrap(customer_id, sealed)

    both.rewrap = slow
    counts = await profiles.rewrap(both, "new")
    assert filled.get("{tg:0}:p:c-1") == b"{}"
    assert counts["rewrapped"] == 3


async def test_without_the_old_master_key_nothing_is_touched(profiles, filled):
    before = {key: filled.get(key) for key in filled.keys("*")}
    with pytest.raises(HistoryError, match="old, which is not given"):
        await profiles.rewrap(vault(NEW), "new")
    assert {key: filled.get(key) for key in filled.keys("*")} == before


async def test_a_server_that_is_away_is_told():
    away = StoredProfiles("redis://127.0.0.1:1/0", "tg")
    with pytest.raises(DependencyError):
        await away.rewrap(vault(NEW), "new")
    await away.close()


@pytest.mark.parametrize("namespace", ["bank[eu]", "b?nk*"])
async def test_a_namespace_with_wildcards_in_it_is_found(valkey, direct, namespace):
    keys = ContactVault(LocalMasterKeys(KeyRing.of_text(OLD)), namespace)
    sealed = await keys.seal("c-1", CONTACT)
    direct.set(f"{{{namespace}:0}}:p:c-1", orjson.dumps({"contact": sealed.model_dump()}))
    found = StoredProfiles(valkey.url, namespace)
    both = ContactVault(LocalMasterKeys(KeyRing.of_text(f"{OLD},{NEW}")), namespace)
    assert (await found.rewrap(both, "new"))["rewrapped"] == 1
    await found.close()


async def test_a_namespace_that_begins_as_another_is_none_of_it(profiles, filled):
    sealed = await ContactVault(LocalMasterKeys(KeyRing.of_text(OLD)), "tg:eu").seal("c-9", CONTACT)
    stored = orjson.dumps({"contact": sealed.model_dump()})
    filled.set("{tg:eu:0}:p:c-9", stored)
    assert (await profiles.rewrap(vault(f"{OLD},{NEW}"), "new"))["rewrapped"] == 4
    assert filled.get("{tg:eu:0}:p:c-9") == stored
