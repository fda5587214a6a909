from urllib.parse import quote

import pytest

from api.personal import Personal
from features.ports import Commit
from tests.serving import MemoryReplies, World, serving

STRANGE = (
    "x\n",
    "x\ny",
    "\n",
    "x\r\x00\x1f\x7f\u2028",
    "x/y",
    "x/",
    "/x",
    "x/features",
    "x/profile",
    "x/profile\n",
    "x/profile/profile",
    "x%2Fy",
    "x?y#z",
    "\uffff/é",
)
PLAIN = ("x", "", "y")
"""Customers that a path of another would be read as where it is cut off."""


@pytest.fixture
def erased() -> list[str]:
    return []


@pytest.fixture
async def api(eager, erased):
    """The API over profiles of customers with strange names."""

    async def erase(request) -> None:
        erased.append(request.customer_id)

    filled = World()
    lease = await filled.begin()
    profiles = dict.fromkeys((*STRANGE, *PLAIN), b"{}")
    await filled.store.apply(lease, Commit("customers", None, 1, profiles=profiles))
    async with serving(filled.store, eager, extras={"replies": MemoryReplies()}) as found:
        found._transport.app.state.personal = {"default": Personal(erase=erase)}
        yield found


@pytest.mark.parametrize("customer_id", STRANGE)
async def test_whatever_is_in_an_id_it_is_read_and_erased_and_no_other(api, erased, customer_id):
    path = f"/customers/{quote(customer_id, safe='')}"
    for what in ("", "/features", "/scores", "/profile", "/export"):
        answer = await api.get(path + what)
        assert (answer.status_code, answer.json()["customer_id"]) == (200, customer_id), what
    assert (await api.delete(path)).status_code == 202
    assert erased == [customer_id]


@pytest.mark.parametrize("path", ["x/y", "x/profile/profile", "x/"])
async def test_slashes_of_an_id_that_are_not_encoded_are_read_as_ever(api, erased, path):
    assert (await api.delete(f"/customers/{path}")).status_code == 202
    assert erased == [path]


async def test_a_key_that_came_with_one_strange_id_does_not_answer_for_another(api, erased):
    same = {"Idempotency-Key": "k"}
    for number, customer_id in enumerate(("x", "x\n", "x#y", "x#z", "x/y")):
        answer = await api.delete(f"/customers/{quote(customer_id, safe='')}", headers=same)
        assert answer.status_code == (422 if number else 202)
    assert erased == ["x"]
    again = await api.delete("/customers/x", headers=same)
    assert again.headers["idempotency-replayed"] == "true"
