import json

import pytest
from typer.testing import CliRunner

from cli import clients, keys
from infra.client_store import ClientStore
from infra.signing_keys import SigningKeys
from schemas.errors import ConfigError


def run(app, folder, *arguments):
    result = CliRunner().invoke(app, [*arguments, "--dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_a_client_is_added_rotated_listed_and_revoked(tmp_path):
    added = json.loads(
        run(clients.app, tmp_path, "add", "Desk", "--scope", "inference", "--tenant", "retail", "--json")
    )
    store = ClientStore(tmp_path)
    client = await store.authenticate(added["client_id"], added["client_secret"])
    assert client is not None
    assert (client.tenant, client.scopes) == ("retail", {"inference"})
    rotated = json.loads(run(clients.app, tmp_path, "rotate", client.client_id, "--overlap", "0", "--json"))
    assert await ClientStore(tmp_path).authenticate(client.client_id, added["client_secret"]) is None
    assert await ClientStore(tmp_path).authenticate(client.client_id, rotated["client_secret"])
    (listed,) = json.loads(run(clients.app, tmp_path, "list", "--json"))
    assert listed["state"] == "active"
    assert "$argon2" not in str(listed)
    run(clients.app, tmp_path, "revoke", client.client_id)
    (listed,) = json.loads(run(clients.app, tmp_path, "list", "--json"))
    assert listed["state"] == "revoked"
    assert "revoked" in run(clients.app, tmp_path, "list")


def test_a_scope_that_is_none_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match="there is no scope everything; there are customers:read,"):
        run(clients.app, tmp_path, "add", "Desk", "--scope", "everything")
    assert not list(tmp_path.iterdir())


def test_keys_are_rotated_listed_and_revoked(tmp_path):
    first = json.loads(run(keys.app, tmp_path, "rotate", "--json"))
    second = json.loads(run(keys.app, tmp_path, "rotate", "--algorithm", "Ed25519", "--wait", "60", "--json"))
    listed = json.loads(run(keys.app, tmp_path, "list", "--json"))
    assert [(k["kid"], k["algorithm"], k["state"]) for k in listed] == [
        (first["kid"], "ES256", "signing"),
        (second["kid"], "Ed25519", "waiting"),
    ]
    run(keys.app, tmp_path, "revoke", first["kid"])
    assert SigningKeys(tmp_path).current().kid == second["kid"]
    assert second["kid"][:8] in run(keys.app, tmp_path, "list")


def test_an_algorithm_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ES256 or Ed25519, not RS256"):
        run(keys.app, tmp_path, "rotate", "--algorithm", "RS256")
