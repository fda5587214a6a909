"""`tidegate audit`."""

from pathlib import Path
from typing import Annotated

import orjson
import typer

from cli.console import out, print_json
from infra.audit_log import pseudonym, read_anchors, records, verify
from infra.key_ring import KeyRing
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The audit trail.")
Folder = Annotated[Path, typer.Option("--dir", envvar="TIDEGATE_AUDIT_DIR", help="Folder of the trail.")]
Secrets = Annotated[
    Path, typer.Option("--keys", envvar="TIDEGATE_SECURITY_DIR", help="Folder of audit-keys.json.")
]
Text = Annotated[
    str, typer.Option(envvar="TIDEGATE_AUDIT_KEYS", help="NAME:BASE64,... instead.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
_TRAIL, _KEYS = Path(".tidegate/audit"), Path(".tidegate/security")


@app.callback()
def audit() -> None:
    """The audit trail."""


@app.command(name="verify")
def verify_trail(
    folder: Folder = _TRAIL,
    keys: Secrets = _KEYS,
    key_text: Text = "",
    anchor: Annotated[
        Path | None, typer.Option(envvar="TIDEGATE_AUDIT_ANCHOR", help="File of anchors.")
    ] = None,
    head: Annotated[str, typer.Option(help="NUMBER:CODE of an anchor, for example from the API's log.")] = "",
    json: Json = False,
) -> None:
    """Check that no record was deleted, edited, moved or added; with an anchor, that none was cut off.

    Exit code 2 and the place where it was.
    """
    anchors = list(read_anchors(anchor)) if anchor is not None else []
    if head:
        number, _, code = head.partition(":")
        if not number.isdigit() or not code:
            raise ConfigError("--head is NUMBER:CODE")
        anchors.append({"number": int(number), "code": code})
    end = verify(folder, _ring(keys, key_text), iter(anchors))
    if json:
        print_json({"records": end.number, "code": end.code, "anchors": len(anchors)})
    else:
        out.print(f"{end.number} records, unbroken; {len(anchors)} anchors hold", highlight=False)
        if not anchors:
            out.print("no anchor was given: records cut off at the end would not be seen", highlight=False)


@app.command()
def show(
    customer: Annotated[str, typer.Option(help="Only what is about this customer.")] = "",
    tenant: Annotated[str, typer.Option(help="Of the customer.")] = "default",
    folder: Folder = _TRAIL,
    keys: Secrets = _KEYS,
    key_text: Text = "",
) -> None:
    """Print records, one JSON object a line. Customers are under pseudonyms, found with the key."""
    ring = _ring(keys, key_text)
    wanted = {pseudonym(key.secret, tenant, customer) for name in ring.names if (key := ring.find(name))}
    for place, line in records(folder):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise ConfigError(f"{place}: this is no audit record") from None
        if not customer or wanted & set(record.get("subjects", ())):
            print_json(record)


def _ring(folder: Path, text: str) -> KeyRing:
    return KeyRing.of_text(text) if text else KeyRing.of_file(folder, "audit")
