import json

import pytest
from typer.testing import CliRunner

from cli import audit, clients, keys
from infra.audit_log import AuditLog
from infra.client_store import ClientStore
from infra.key_ring import KeyRing
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


def test_keys_for_audit_and_data_are_rotated_and_revoked(tmp_path):
    first = json.loads(run(keys.app, tmp_path, "rotate", "--for", "data", "--json"))["key"]
    second = json.loads(run(keys.app, tmp_path, "rotate", "--for", "data", "--json"))["key"]
    assert KeyRing.of_file(tmp_path, "data").names == [first, second]
    listed = json.loads(run(keys.app, tmp_path, "list", "--for", "data", "--json"))
    assert listed == [{"key": first, "state": "older"}, {"key": second, "state": "in use"}]
    shown = run(keys.app, tmp_path, "list", "--for", "data")
    assert first in shown
    assert (tmp_path / "data-keys.json").read_text().split(":")[2][:20] not in shown
    run(keys.app, tmp_path, "revoke", first, "--for", "data")
    assert KeyRing.of_file(tmp_path, "data").names == [second]
    for command in (["rotate"], ["list"], ["revoke", first]):
        with pytest.raises(ConfigError, match="tokens, audit or data, not everything"):
            run(keys.app, tmp_path, *command, "--for", "everything")


def test_without_a_master_key_nothing_is_rewrapped(tmp_path):
    with pytest.raises(ConfigError, match="keys rotate --for data"):
        run(keys.app, tmp_path, "rewrap")


def test_a_trail_is_verified_and_searched(tmp_path):
    run(keys.app, tmp_path, "rotate", "--for", "audit")
    ring = KeyRing.of_file(tmp_path, "audit")
    log = AuditLog(tmp_path / "trail", ring, anchor=tmp_path / "anchors.jsonl")
    for customer in ("c-1", "c-2", "c-1"):
        log.append({"actor": "teller", "subjects": [log.subject("default", customer)]})
    log.close()
    given = ["--keys", str(tmp_path), "--anchor", str(tmp_path / "anchors.jsonl")]
    told = json.loads(run(audit.app, tmp_path / "trail", "verify", "--json", *given))
    assert (told["records"], told["anchors"]) == (3, 1)
    found = run(audit.app, tmp_path / "trail", "show", "--customer", "c-1", "--keys", str(tmp_path))
    assert [json.loads(line)["number"] for line in found.splitlines()] == [1, 3]
    head = f"4:{told['code']}"
    with pytest.raises(ConfigError, match="record 4 was anchored"):
        run(audit.app, tmp_path / "trail", "verify", "--head", head, *given)
    assert "no anchor was given" in run(audit.app, tmp_path / "trail", "verify", "--keys", str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found[:1] + found[2:], "record 3 does not follow record 1"),
        (lambda found: [found[0].replace(b"read", b"seen"), *found[1:]], "record 1 was edited"),
        (lambda found: [found[1], found[0], *found[2:]], "record 2 does not follow record 0"),
        (lambda found: found[:-1], "ends with record 3, but record 4 was anchored"),
    ],
    ids=["delete", "edit", "reorder", "truncate"],
)
def test_verify_refuses_a_trail_that_was_changed(tmp_path, change, words):
    run(keys.app, tmp_path, "rotate", "--for", "audit")
    log = AuditLog(tmp_path / "trail", KeyRing.of_file(tmp_path, "audit"), anchor=tmp_path / "anchors.jsonl")
    for _ in range(4):
        log.append({"actor": "teller", "action": "read"})
    log.close()
    file = tmp_path / "trail" / "audit-000001.jsonl"
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    given = ["--keys", str(tmp_path), "--anchor", str(tmp_path / "anchors.jsonl")]
    with pytest.raises(ConfigError, match=words):
        run(audit.app, tmp_path / "trail", "verify", *given)
