"""`tidegate keys`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from cli.console import out, print_json
from infra.signing_keys import ALGORITHMS, SigningKey, SigningKeys

app = typer.Typer(no_args_is_help=True, help="Keys that sign access tokens.")
Folder = Annotated[
    Path, typer.Option("--dir", envvar="TIDEGATE_SECURITY_DIR", help="Folder of signing keys and clients.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
_DEFAULT = Path(".tidegate/security")
# Leeway of verifiers on both sides, api.tokens.LEEWAY_S.
_LEEWAY_S = 60


@app.callback()
def keys() -> None:
    """Keys that sign access tokens."""


@app.command()
def rotate(
    folder: Folder = _DEFAULT,
    algorithm: Annotated[str, typer.Option(help=" or ".join(ALGORITHMS) + ".")] = "ES256",
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds until the new key signs: longer than others keep the key set."),
    ] = 300.0,
    ttl: Annotated[
        float, typer.Option(min=60, envvar="TIDEGATE_AUTH_TOKEN_TTL_S", help="Life of tokens, in seconds.")
    ] = 600.0,
    json: Json = False,
) -> None:
    """Make a new signing key; the one before it verifies on until its last token has expired.

    Running API processes see it within a second; no valid token is refused. The first key signs at once.
    """
    keys = SigningKeys(folder)
    made = keys.rotate(algorithm=algorithm, wait_s=wait, keep_s=ttl + _LEEWAY_S)
    row = _row(made, keys)
    if json:
        print_json(row)
    else:
        out.print(f"key {row['kid']} signs from {row['signs_from']}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_keys(folder: Folder = _DEFAULT, json: Json = False) -> None:
    """Show the keys, never their private part."""
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
def revoke(kid: Annotated[str, typer.Argument(help="Name of the key.")], folder: Folder = _DEFAULT) -> None:
    """Forget a key that others may know: every token it signed is refused within a second."""
    SigningKeys(folder).revoke(kid)


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
