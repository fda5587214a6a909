import asyncio

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from infra.remote_keys import RemoteKeys, check_key_set_url
from schemas.errors import ConfigError

URL = "https://issuer.example/jwks.json"


class Issuer:
    """Somebody else's key set, with a clock."""

    def __init__(self, *keys) -> None:
        self.keys = list(keys)
        self.now = 0.0
        self.requests = 0
        self.answer = None
        self.outcomes = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or httpx.Response(
            200, json={"keys": [k.as_dict(private=False) for k in self.keys]}
        )

    def client(self, **options) -> RemoteKeys:
        return RemoteKeys(
            URL,
            clock=lambda: self.now,
            transport=httpx.MockTransport(self.handle),
            count=self.outcomes.append,
            **options,
        )


@pytest.mark.parametrize(
    "url",
    ["issuer", "//issuer/jwks", "ftp://issuer/jwks", "https://", "https:///jwks", "https://issuer:99999/",
     "https://issuer:abc/", "https://iss uer/", "https://issuer\n/", "https://xn--/"],
)  # fmt: skip
def test_what_is_no_address_of_a_key_set_is_refused_at_once(url):
    with pytest.raises(ConfigError, match="TIDEGATE_AUTH_JWKS_URL is https://HOST/PATH"):
        check_key_set_url(url)


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.1:8080/keys?v=1", "https://[::1]:8443/", "https://münchen.example/k"]
)
def test_addresses_of_key_sets_are_taken(url):
    check_key_set_url(url)


def key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


async def test_a_key_is_fetched_once_and_kept():
    issuer = Issuer(key("a"), OKPKey.generate_key("Ed25519", {"kid": "b"}))
    keys = issuer.client()
    for _ in range(3):
        assert (await keys.find("a")).kid == "a"
        assert (await keys.find("b")).kid == "b"
    assert issuer.requests == 1
    await keys.close()


async def test_a_flood_of_unknown_names_causes_one_fetch_an_interval():
    issuer = Issuer(key("a"))
    keys = issuer.client(interval_s=10)
    await keys.find("a")
    for interval in range(5):
        issuer.now += 10
        found = await asyncio.gather(*(keys.find(f"made-up-{interval}-{n}") for n in range(200)))
        assert found == [None] * 200
    assert issuer.requests == 6
    await keys.close()


async def test_a_new_key_is_found_without_waiting_for_the_refresh():
    issuer = Issuer(key("a"))
    keys = issuer.client(refresh_s=300, interval_s=10)
    await keys.find("a")
    issuer.keys.append(key("b"))
    issuer.now += 10
    assert (await keys.find("b")).kid == "b"
    await keys.close()


async def test_old_keys_are_refreshed_in_the_background_and_withdrawn_ones_forgotten():
    issuer = Issuer(key("a"), key("b"))
    keys = issuer.client(refresh_s=300)
    await keys.find("a")
    issuer.keys.pop()
    issuer.now += 300
    assert (await keys.find("b")) is not None  # nobody waits for the refresh
    await asyncio.gather(keys._fetching)
    assert await keys.find("b") is None
    await keys.close()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("away"),
        httpx.Response(500),
        httpx.Response(302, headers={"location": "https://forger.example"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, json=["keys"]),
        httpx.Response(200, content=b" " * 300_000),
    ],
    ids=lambda a: type(a).__name__,
)
async def test_while_the_issuer_is_away_keys_are_used_for_a_bounded_time(answer):
    issuer = Issuer(key("a"))
    keys = issuer.client(refresh_s=300, stale_s=3600)
    await keys.find("a")
    issuer.answer = answer
    issuer.now += 3599
    assert await keys.find("a") is not None
    await asyncio.gather(keys._fetching)
    issuer.now += 10
    assert await keys.find("a") is None
    assert set(issuer.outcomes) == {"fetched", "failed"}
    issuer.answer = None
    issuer.now += 10
    assert await keys.find("a") is not None
    await keys.close()


async def test_keys_that_are_not_for_us_are_left_out():
    keys_of_issuer = [
        key("right"),
        RSAKey.generate_key(2048, {"kid": "rsa"}),
        ECKey.generate_key("P-384", {"kid": "p384"}),
        ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"}),
        ECKey.generate_key("P-256"),
    ]
    issuer = Issuer(*keys_of_issuer)
    documents = [k.as_dict(private=False) for k in keys_of_issuer]
    documents.append(OctKey.generate_key(256, {"kid": "oct"}).as_dict())
    documents.append({"kty": "EC", "crv": "P-256", "kid": "broken", "x": "AA", "y": "AA"})
    issuer.answer = httpx.Response(200, json={"keys": documents})
    client = issuer.client()
    found = {
        kid: await client.find(kid) is not None for kid in ("right", "rsa", "p384", "enc", "oct", "broken")
    }
    assert found == {"right": True, "rsa": False, "p384": False, "enc": False, "oct": False, "broken": False}
    await client.close()
