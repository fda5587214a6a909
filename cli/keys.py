"""`tidegate keys`."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from cli.console import out, print_json
from cli.options import NAMESPACE, Namespace
from infra.access import from_environment
from infra.contact_vault import ContactVault
from infra.key_ring import PURPOSES, KeyRing, add_key, remove_key
from infra.kms import master_keys
from infra.profiles import StoredProfiles
from infra.signing_keys import ALGORITHMS, SigningKey, SigningKeys
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Keys for tokens, audit and data.")
Folder = Annotated[
    Path, typer.Option("--dir", envvar="TIDEGATE_SECURITY_DIR", help="Folder of signing keys and clients.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
_DEFAULT = Path(".tidegate/security")
# Leeway of verifiers on both sides, api.tokens.LEEWAY_S.
_LEEWAY_S = 60


@app.callback()
def keys() -> None:
    """Keys for tokens, audit and data."""


@app.command()
def rotate(
    folder: Folder = _DEFAULT,
    algorithm: Annotated[str, typer.Option(help=" or ".join(ALGORITHMS) + ".")] = "ES256",
    purpose: Annotated[
        str, typer.Option("--for", help="tokens, audit (the trail) or data (customers' contact data).")
    ] = "tokens",
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds until the new key signs: longer than others keep the key set."),
    ] = 300.0,
    ttl: Annotated[
        float, typer.Option(min=60, envvar="TIDEGATE_AUTH_TOKEN_TTL_S", help="Life of tokens, in seconds.")
    ] = 600.0,
    json: Json = False,
) -> None:
    """Make a new key; what was made with those before it stays good.

    Keys for tokens: running API processes see it within a second, it signs after the wait (the first one at
    once), and no valid token is refused. Keys for audit and data are used from the next start of API and
    workers on; those before them stay, to verify and to read.
    """
    if purpose in PURPOSES:
        name = add_key(folder, purpose)
        if json:
            print_json({"key": name, "for": purpose})
        else:
            out.print(f"{purpose} key {name}", highlight=False, soft_wrap=True)
        return
    if purpose != "tokens":
        _require_purpose(purpose)
    keys = SigningKeys(folder)
    made = keys.rotate(algorithm=algorithm, wait_s=wait, keep_s=ttl + _LEEWAY_S)
    row = _row(made, keys)
    if json:
        print_json(row)
    else:
        out.print(f"key {row['kid']} signs from {row['signs_from']}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_keys(
    folder: Folder = _DEFAULT,
    purpose: Annotated[str, typer.Option("--for", help="tokens, audit or data.")] = "tokens",
    json: Json = False,
) -> None:
    """Show the keys, never their private part: names for 'tidegate keys revoke'."""
    if purpose != "tokens":
        _require_purpose(purpose)
        _list_ring(KeyRing.of_file(folder, purpose), json)
        return
    keys = SigningKeys(folder)
    rows = [_row(key, keys) for key in keys.all()]
    if json:
        print_json(rows)
        return
    table = Table(
        Column("key", no_wrap=True, min_width=43), "algorithm", "state", "signs from", "verifies until"
    )
    for row in rows:
        table.add_row(
            *(str(row[name] or "") for name in ("kid", "algorithm", "state", "signs_from", "until"))
        )
    out.print(table)


@app.command()
def revoke(
    kid: Annotated[str, typer.Argument(help="Name of the key.")],
    purpose: Annotated[str, typer.Option("--for", help="tokens, audit or data.")] = "tokens",
    folder: Folder = _DEFAULT,
) -> None:
    """Forget a key.

    Of tokens: every token it signed is refused within a second. Of data: what is still sealed under it can
    never be opened again, also in backups; run 'tidegate keys rewrap' before. Of audit: its records cannot be
    verified any more.
    """
    if purpose == "tokens":
        SigningKeys(folder).revoke(kid)
    else:
        _require_purpose(purpose)
        remove_key(folder, purpose, kid)


@app.command()
def rewrap(
    redis_url: Annotated[str, typer.Option(envvar="TIDEGATE_REDIS_URL", help="Redis or Valkey.")] = (
        "redis://127.0.0.1:6379/0"
    ),
    namespace: Namespace = NAMESPACE,
    folder: Folder = _DEFAULT,
    key_text: Annotated[
        str, typer.Option(envvar="TIDEGATE_DATA_KEYS", help="NAME:BASE64,... instead.", show_default=False)
    ] = "",
    json: Json = False,
) -> None:
    """Put the keys of all sealed contact data under the newest master key, while workers run on.

    Restart the workers with the new key first, so that nothing is sealed under an old one meanwhile.
    """
    keys = master_keys(key_text, folder)
    if keys is None:
        raise ConfigError("there is no master key: run 'tidegate keys rotate --for data'")

    _, redis = from_environment()

    async def run() -> dict[str, int]:
        profiles = StoredProfiles(redis_url, namespace, options=redis.options(redis_url))
        try:
            return await profiles.rewrap(ContactVault(keys, namespace), await keys.newest())
        finally:
            await profiles.close()

    counts = asyncio.run(run())
    if json:
        print_json(counts)
    else:
        out.print(", ".join(f"{count} {what}" for what, count in counts.items()), highlight=False)


def _list_ring(ring: KeyRing, json: bool) -> None:
    """Programs that were started before the newest was made still use the one before."""
    rows = [{"key": n, "state": "in use" if n == ring.current.key_id else "older"} for n in ring.names]
    if json:
        print_json(rows)
        return
    table = Table(Column("key", no_wrap=True), "state")
    for row in rows:
        table.add_row(*row.values())
    out.print(table)


def _require_purpose(purpose: str) -> None:
    if purpose not in PURPOSES:
        raise ConfigError(f"keys are for tokens, {' or '.join(PURPOSES)}, not {purpose}")


def _row(key: SigningKey, keys: SigningKeys) -> dict[str, Any]:
    until = key.verifies_until
    state = key.state(datetime.now(UTC))
    if state == "known":
        state = "signing" if key.kid == keys.current().kid else "verifying"
    return {
        "kid": key.kid,
        "algorithm": key.key.alg,
        "state": state,
        "signs_from": key.signs_from.isoformat(timespec="seconds"),
        "until": until.isoformat(timespec="seconds") if until else None,
    }
