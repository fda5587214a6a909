"""Master keys in a transit engine, against one that encrypts for real."""

import base64
import json

import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra import kms
from infra.contact_vault import ContactVault, LocalMasterKeys
from infra.key_ring import KeyRing
from infra.kms import KmsAccess, TransitKeys, master_keys
from schemas.errors import ConfigError, DependencyError, HistoryError

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
CONTACT = {"name": "Some Body", "email": "some.body@example.org"}


class Transit:
    """A transit engine with versions of one key, as Vault's."""

    def __init__(self):
        self.keys = [AESGCM.generate_key(256)]
        self.token = "first"
        self.asked: list[tuple[str, str]] = []
        self.answers: list[httpx.Response | Exception] = []

    def __call__(self, request):
        action, key = request.url.path.split("/")[-2:]
        self.asked.append((action, request.headers["x-vault-token"]))
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.headers["x-vault-token"] != self.token:
            return httpx.Response(403, json={"errors": ["permission denied"]})
        assert request.url.path == f"/v1/transit/{action}/bank"
        assert key == "bank"
        body = json.loads(request.content)
        about = base64.b64decode(body["associated_data"])
        if action == "encrypt":
            sealed = AESGCM(self.keys[-1]).encrypt(b"n" * 12, base64.b64decode(body["plaintext"]), about)
            text = f"vault:v{len(self.keys)}:{base64.b64encode(sealed).decode()}"
            return httpx.Response(200, json={"data": {"ciphertext": text}})
        _, version, sealed = body["ciphertext"].split(":")
        try:
            plain = AESGCM(self.keys[int(version[1:]) - 1]).decrypt(
                b"n" * 12, base64.b64decode(sealed), about
            )
        except InvalidTag:
            return httpx.Response(400, json={"errors": ["cipher: message authentication failed"]})
        return httpx.Response(200, json={"data": {"plaintext": base64.b64encode(plain).decode()}})


@pytest.fixture
def transit(monkeypatch):
    monkeypatch.setattr(kms, "_PAUSE_S", 0)
    return Transit()


@pytest.fixture
def access(tmp_path):
    (tmp_path / "token").write_text("first\n")
    return KmsAccess(
        data_kms_url="https://keys.example/v1/transit/",
        data_kms_key="bank",
        data_kms_token_file=tmp_path / "token",
    )


def keys_of(access, transit, local=None):
    return TransitKeys(access, local, transport=httpx.MockTransport(transit))


async def test_contact_data_is_opened_by_the_service_for_its_customer_only(access, transit):
    vault = ContactVault(keys_of(access, transit), "tg")
    sealed, other = await vault.seal("c-1", CONTACT), await vault.seal("c-2", CONTACT)
    assert sealed.key == "kms:bank:v1"
    assert await vault.open("c-1", sealed) == CONTACT
    with pytest.raises(HistoryError):
        await vault.open("c-1", sealed.model_copy(update={"wrapped": other.wrapped}))


async def test_versions_of_the_key_there_are_told_apart_and_data_keys_move_to_the_newest(access, transit):
    keys = keys_of(access, transit)
    vault = ContactVault(keys, "tg")
    sealed = await vault.seal("c-1", CONTACT)
    transit.keys.append(AESGCM.generate_key(256))
    assert await keys.newest() == "kms:bank:v2"
    moved = await vault.rewrap("c-1", sealed)
    assert moved.key == "kms:bank:v2"
    transit.keys[0] = AESGCM.generate_key(256)
    assert await vault.open("c-1", moved) == CONTACT
    with pytest.raises(HistoryError):
        await vault.open("c-1", sealed)


async def test_what_a_local_key_wrapped_before_is_opened_and_moves_to_the_service(access, transit):
    local = LocalMasterKeys(KeyRing.of_text(OLD))
    sealed = await ContactVault(local, "tg").seal("c-1", CONTACT)
    vault = ContactVault(keys_of(access, transit, local), "tg")
    assert await vault.open("c-1", sealed) == CONTACT
    assert (await vault.rewrap("c-1", sealed)).key == "kms:bank:v1"
    with pytest.raises(HistoryError, match="master key old"):
        await ContactVault(keys_of(access, transit), "tg").open("c-1", sealed)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("no"),
        httpx.Response(503),
        httpx.Response(403),
        httpx.Response(200, text="no json"),
        httpx.Response(200, json={"data": []}),
        httpx.Response(307, headers={"location": "https://elsewhere.example"}),
    ],
)
async def test_a_service_that_is_away_is_asked_a_few_times_and_then_waited_for(access, transit, answer):
    keys = keys_of(access, transit)
    transit.answers = [answer] * 2
    assert (await keys.wrap(bytes(32), b"a"))[0] == "kms:bank:v1"
    transit.answers = [answer] * 3
    with pytest.raises(DependencyError, match="key management service"):
        await keys.wrap(bytes(32), b"a")
    assert len(transit.asked) == 6


async def test_a_renewed_token_is_taken_from_its_file(access, transit, monkeypatch):
    now = 0.0
    monkeypatch.setattr(kms.time, "monotonic", lambda: now)
    keys = keys_of(access, transit)
    await keys.wrap(bytes(32), b"a")
    transit.token = "second"
    access.data_kms_token_file.write_text("second")
    now = 2.0
    await keys.wrap(bytes(32), b"a")
    assert [token for _, token in transit.asked] == ["first", "second"]


async def test_an_answer_without_the_key_is_no_key(access, transit):
    keys = keys_of(access, transit)
    for action in (keys.wrap(bytes(32), b"a"), keys.unwrap("kms:bank:v1", b"vault:v1:eA==", b"a")):
        transit.answers = [httpx.Response(200, json={"data": {}})] * 3
        with pytest.raises(DependencyError, match="without a"):
            await action


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"data_kms_url": "keys.example"}, "TIDEGATE_DATA_KMS_URL is not"),
        ({"data_kms_url": "http://keys.example/v1/transit"}, "over TLS"),
        ({"data_kms_token_file": None}, "TOKEN_FILE: set"),
        ({"data_kms_token_file": "/nowhere/token"}, "cannot be read"),
        ({"data_kms_ca": "/nowhere/ca.pem"}, "TIDEGATE_DATA_KMS_CA"),
    ],
)
def test_what_cannot_be_used_is_said_at_the_start(access, changed, says):
    with pytest.raises(ConfigError, match=says):
        TransitKeys(KmsAccess(**(access.model_dump() | changed)))


def test_without_an_address_local_keys_are_used_or_none(tmp_path, access):
    none = KmsAccess(data_kms_url="")
    assert master_keys("", tmp_path, none) is None
    assert isinstance(master_keys(OLD, tmp_path, none), LocalMasterKeys)
    assert isinstance(master_keys("", tmp_path, access), TransitKeys)
