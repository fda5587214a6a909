import base64

import pytest

from api.personal import Personal
from features.codec import decode
from features.ports import Commit
from infra.contact_vault import ContactVault, LocalMasterKeys
from infra.key_ring import KeyRing
from schemas.customer import Profile
from schemas.fields import to_rfc3339
from tests.closing import Login
from tests.scoring import START
from tests.serving import AWAY, NOW, Broken, World, assert_problem, serving

RING = KeyRing.of_text("k:" + base64.b64encode(b"k" * 32).decode())
VAULT = ContactVault(LocalMasterKeys(RING), "tg")
CONTACT = {"email": "some.body@example.org", "phone": "+33 1 23 45"}


@pytest.fixture
def login() -> Login:
    return Login()


@pytest.fixture
async def known(world, customer, eager) -> World:
    """One customer with transactions and a profile with contact data."""
    filled = World()
    await filled.score(world.transactions[customer], eager)
    profile = Profile(
        customer_id=customer, country="FR", income="31000", contact=await VAULT.seal(customer, CONTACT)
    )
    stored = profile.model_dump_json(exclude_none=True).encode()
    assert filled.lease is not None
    await filled.store.apply(filled.lease, Commit("customers", None, 1, profiles={customer: stored}))
    return filled


@pytest.fixture
def sent() -> list:
    return []


@pytest.fixture
async def api(known, eager, login, sent):
    async def erase(request) -> None:
        sent.append(request)

    async with serving(known.store, eager, security=login.security()) as found:
        found._transport.app.state.personal = {"default": Personal(VAULT.open, erase)}
        yield found


async def test_contact_data_is_masked_unless_the_scope_is_there(api, login, customer):
    path = f"/customers/{customer}/profile"
    masked = await api.get(path, headers=login.bearer(["customers:read"]))
    assert masked.json()["contact"] == {"email": "***", "phone": "***"}
    assert masked.json()["profile"]["country"] == "FR"
    for value in (*CONTACT.values(), "wrapped", "fields"):
        assert value not in masked.text
    clear = await api.get(path, headers=login.bearer(["customers:read", "customers:contact"]))
    assert clear.json()["contact"] == CONTACT
    # Seeing contact data is not enough to look up customers.
    refused = await api.get(path, headers=login.bearer(["customers:contact"]))
    assert_problem(refused, 403, "forbidden", *CONTACT.values())


async def test_without_the_master_key_contact_data_stays_masked(api, login, customer):
    api._transport.app.state.personal = {}
    answer = await api.get(f"/customers/{customer}/profile", headers=login.bearer())
    assert answer.json()["contact"] == {"email": "***", "phone": "***"}


async def test_without_the_master_key_there_is_no_export(api, login, customer, known):
    api._transport.app.state.personal = {}
    headers = login.bearer(["customers:export"])
    answer = await api.get(f"/customers/{customer}/export", headers=headers)
    assert "no data keys" in assert_problem(answer, 503, "history-unreadable", *CONTACT.values())["detail"]
    await known.store.apply(known.lease, Commit("customers", 1, 2, profiles={customer: None}))
    assert (await api.get(f"/customers/{customer}/export", headers=headers)).json()["contact"] == {}


async def test_contact_data_of_another_customer_is_not_opened(api, login, customer, known):
    stored = known.store._partitions[0].profiles[customer]
    await known.store.apply(known.lease, Commit("customers", 1, 2, profiles={"other": stored}))
    answer = await api.get("/customers/other/profile", headers=login.bearer())
    assert_problem(answer, 503, "history-unreadable", *CONTACT.values())


async def test_who_has_no_profile_has_an_empty_one(api, login, known, customer):
    await known.store.apply(known.lease, Commit("customers", 1, 2, profiles={customer: None}))
    answer = (await api.get(f"/customers/{customer}/profile", headers=login.bearer())).json()
    assert answer == {"customer_id": customer, "profile": {}, "contact": {}}


async def test_an_export_is_everything_that_is_kept(api, login, known, customer):
    headers = login.bearer(["customers:export"])
    told = (await api.get(f"/customers/{customer}/export", headers=headers)).json()
    state = await known.store.read(customer)
    history = decode(state.history)
    assert told["exported_at"] == to_rfc3339(NOW)
    assert told["contact"] == CONTACT
    assert told["profile"]["income"] == "31000"
    assert told["totals"]["count"] == len(known.transactions[customer]) == history.totals.count
    assert [e["amount_minor"] for e in told["history"]] == history.records["amount_minor"].tolist()
    assert [e["transaction"] for e in told["history"]] == history.records["transaction"].tolist()
    features = await api.get(f"/customers/{customer}/features", headers=login.bearer())
    assert told["features"] == features.json()["features"]
    scores = (await api.get(f"/customers/{customer}/scores", headers=login.bearer())).json()
    assert [s["transaction_id"] for s in told["fraud"]] == [s["transaction_id"] for s in scores["fraud"]]
    assert told["churn"]["churn_probability"] == scores["churn"]["churn_probability"]


async def test_an_erasure_is_asked_of_the_stream(api, login, customer, sent):
    answer = await api.delete(f"/customers/{customer}", headers=login.bearer(["customers:erase"]))
    assert answer.status_code == 202
    (request,) = sent
    assert (request.customer_id, request.requested_at, request.requested_by) == (customer, NOW, "teller")
    assert answer.json() == {"erasure_id": request.erasure_id, "requested_at": to_rfc3339(NOW)}
    assert request.requested_at > START


async def test_an_unknown_customer_is_not_erased(api, login, sent):
    answer = await api.delete("/customers/nobody-home", headers=login.bearer())
    assert_problem(answer, 404, "unknown-customer", "nobody-home")
    assert sent == []


async def test_an_erasure_is_asked_for_while_histories_are_built(api, login, known, customer, sent):
    known.store._partitions[0].building = True
    answer = await api.delete(f"/customers/{customer}", headers=login.bearer())
    assert answer.status_code == 202
    assert [request.customer_id for request in sent] == [customer]


async def test_while_kafka_is_away_nothing_is_promised(api, login, customer):
    api._transport.app.state.personal = {"default": Personal(erase=Broken(AWAY).erase)}
    answer = await api.delete(f"/customers/{customer}", headers=login.bearer())
    assert_problem(answer, 503, "dependency-away", customer, "127.0.0.1")


async def test_a_tenant_without_a_broker_cannot_erase(api, login, customer):
    api._transport.app.state.personal = {}
    answer = await api.delete(f"/customers/{customer}", headers=login.bearer())
    assert_problem(answer, 404, "http-not-found", customer)


async def test_awkward_ids_have_profiles_too(client):
    assert (await client.get("/customers/c%2F2/profile")).json()["customer_id"] == "c/2"
