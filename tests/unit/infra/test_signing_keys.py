import stat
from datetime import UTC, datetime, timedelta

import pytest
from joserfc.jwk import OKPKey

from api.tokens import InvalidToken, Principal, TokenIssuer, TokenVerifier
from infra.signing_keys import SigningKeys
from schemas.errors import ConfigError

START = datetime(2026, 3, 1, tzinfo=UTC)
SAID = {"issuer": "https://bank.example", "audience": "tidegate", "tenant_claim": "tenant"}
TTL_S = 600
TELLER = Principal("teller", "default", frozenset({"inference"}))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(tmp_path, clock) -> SigningKeys:
    return SigningKeys(tmp_path / "security", now=clock, check_s=0)


def issuer(keys, clock) -> TokenIssuer:
    return TokenIssuer(lambda: keys.current().key, **SAID, ttl_s=TTL_S, now=clock)


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519"])
async def test_a_new_key_signs_what_it_verifies(keys, clock, algorithm):
    keys.rotate(algorithm=algorithm, wait_s=300, keep_s=TTL_S + 60)
    token = issuer(keys, clock).issue(TELLER)
    assert await TokenVerifier(keys, **SAID, now=clock).verify(token) == TELLER


def test_no_key_has_an_id_that_a_command_would_take_for_an_option(keys, monkeypatch):
    made = (OKPKey.generate_key("Ed25519") for _ in range(100_000))
    dashed = next(key for key in made if key.thumbprint().startswith("-"))
    good = next(key for key in made if not key.thumbprint().startswith("-"))
    following = iter([dashed, good])
    monkeypatch.setattr(OKPKey, "generate_key", lambda curve: next(following))
    keys.rotate(algorithm="Ed25519", wait_s=300, keep_s=TTL_S + 60)
    assert keys.current().kid == good.thumbprint()


#  k1 signs    |----------------)
#  k2 is known          |-------
#  k2 signs                     |------------
#  k1 verifies |---------------------------)
async def test_at_every_moment_of_a_rotation_each_process_verifies_what_any_signs(tmp_path, clock):
    folder = tmp_path / "security"
    processes = [SigningKeys(folder, now=clock, check_s=0) for _ in range(2)]
    operator = SigningKeys(folder, now=clock, check_s=0)
    operator.rotate(wait_s=0, keep_s=TTL_S + 60)
    verifiers = [TokenVerifier(keys, **SAID, now=clock) for keys in processes]
    given: list[tuple[datetime, str]] = []
    signed_by = set()
    for step in range(0, 3600, 30):
        if step in (300, 1500, 1530):
            operator.rotate(wait_s=120, keep_s=TTL_S + 60)
        for keys in processes:
            given.append((clock.now, issuer(keys, clock).issue(TELLER)))
            signed_by.add(keys.current().kid)
        for made, token in given:
            if clock.now - made < timedelta(seconds=TTL_S):
                for verifier in verifiers:
                    assert await verifier.verify(token) == TELLER
        clock.later(30)
    assert len(signed_by) >= 3
    # And it ends: the first key is not known any more.
    with pytest.raises(InvalidToken):
        await verifiers[0].verify(given[0][1])


def test_a_key_is_published_before_it_signs_and_after(keys, clock):
    first = keys.rotate(wait_s=300, keep_s=660)
    second = keys.rotate(wait_s=300, keep_s=660)
    assert keys.current().kid == first.kid
    assert {k["kid"] for k in keys.public()["keys"]} == {first.kid, second.kid}
    clock.later(300)
    assert keys.current().kid == second.kid
    assert {k["kid"] for k in keys.public()["keys"]} == {first.kid, second.kid}
    clock.later(660)
    assert {k["kid"] for k in keys.public()["keys"]} == {second.kid}


def test_the_public_set_has_no_private_part(keys):
    keys.rotate(wait_s=0, keep_s=660)
    assert all("d" not in key for key in keys.public()["keys"])


async def test_a_revoked_key_is_not_found_and_another_signs(keys, clock):
    first = keys.rotate(wait_s=0, keep_s=660)
    second = keys.rotate(wait_s=300, keep_s=660)
    keys.revoke(first.kid)
    assert await keys.find(first.kid) is None
    assert keys.current().kid == second.kid
    clock.later(10_000)
    assert keys.current().kid == second.kid


def test_revoking_the_key_that_waits_leaves_the_other_without_an_end(keys, clock):
    first = keys.rotate(wait_s=0, keep_s=660)
    second = keys.rotate(wait_s=300, keep_s=660)
    keys.revoke(second.kid)
    clock.later(10_000)
    assert keys.current().kid == first.kid


def test_the_only_key_is_not_revoked(keys):
    only = keys.rotate(wait_s=0, keep_s=660)
    with pytest.raises(ConfigError, match="rotate"):
        keys.revoke(only.kid)
    with pytest.raises(ConfigError, match="no key nothing"):
        keys.revoke("nothing")


def test_without_a_key_it_says_what_to_run(keys):
    with pytest.raises(ConfigError, match="tidegate keys rotate"):
        keys.current()


def test_the_file_is_its_owners_only(keys):
    keys.rotate(wait_s=0, keep_s=660)
    assert stat.S_IMODE(keys.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.path.parent.stat().st_mode) == 0o700


def test_while_the_file_is_broken_a_process_goes_on_with_what_it_has(keys, capsys):
    key = keys.rotate(wait_s=0, keep_s=660)
    assert keys.current().kid == key.kid
    keys.path.write_text('{"keys": [{"d": "secret"')
    assert keys.current().kid == key.kid
    assert "secret" not in capsys.readouterr().out
    fresh = SigningKeys(keys.path.parent)
    with pytest.raises(ConfigError) as refused:
        fresh.current()
    assert "secret" not in str(refused.value)
