"""`tidegate clients`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from api.access import SCOPES
from cli.console import err, out, print_json
from infra.client_store import Client, ClientStore
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Programs that may use the API.")
Folder = Annotated[
    Path, typer.Option("--dir", envvar="TIDEGATE_SECURITY_DIR", help="Folder of signing keys and clients.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
ClientId = Annotated[str, typer.Argument(help="As 'tidegate clients list' shows it.")]
_DEFAULT = Path(".tidegate/security")


@app.callback()
def clients() -> None:
    """Programs that may use the API."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is, for people.")],
    scope: Annotated[list[str], typer.Option(help="What it may do; again for more.")],
    tenant: Annotated[str, typer.Option(help="Whose customers it may see.")] = "default",
    folder: Folder = _DEFAULT,
    json: Json = False,
) -> None:
    """Add a client. Its secret is printed once and not kept."""
    unknown = sorted(set(scope) - SCOPES.keys())
    if unknown:
        raise ConfigError(f"there is no scope {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    client, secret = ClientStore(folder).add(name, tenant, scope)
    _show_secret(client.client_id, secret, json)


@app.command()
def rotate(
    client_id: ClientId,
    overlap: Annotated[
        float, typer.Option(min=0, help="Seconds that the secret before works on.")
    ] = 86_400.0,
    folder: Folder = _DEFAULT,
    json: Json = False,
) -> None:
    """Give a client a new secret, printed once."""
    _show_secret(client_id, ClientStore(folder).rotate(client_id, overlap_s=overlap), json)


@app.command()
def revoke(client_id: ClientId, folder: Folder = _DEFAULT) -> None:
    """Refuse a client and the tokens it has, within a second."""
    ClientStore(folder).revoke(client_id)


@app.command(name="list")
def list_clients(folder: Folder = _DEFAULT, json: Json = False) -> None:
    """Show the clients."""
    rows = [_row(client) for client in ClientStore(folder).all()]
    if json:
        print_json(rows)
        return
    table = Table(
        Column("client", no_wrap=True, min_width=19), "name", "tenant", "scopes", "secrets", "state"
    )
    for row in rows:
        table.add_row(
            row["client_id"],
            row["name"],
            row["tenant"],
            " ".join(row["scopes"]),
            str(row["secrets"]),
            row["state"],
        )
    out.print(table)


def _row(client: Client) -> dict[str, Any]:
    return {
        "client_id": client.client_id,
        "name": client.name,
        "tenant": client.tenant,
        "scopes": sorted(client.scopes),
        "secrets": len(client.secrets),
        "state": "revoked" if client.revoked_at else "active",
    }


def _show_secret(client_id: str, secret: str, json: bool) -> None:
    if json:
        print_json({"client_id": client_id, "client_secret": secret})
        return
    out.print(f"client_id      {client_id}\nclient_secret  {secret}", highlight=False, soft_wrap=True)
    err.print("The secret is not kept anywhere: store it now.", highlight=False, soft_wrap=True)
