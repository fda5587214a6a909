"""`tidegate models`."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.console import out, print_json
from infra.model_store import open_registry
from models.registry import NAMES, SEGMENTS
from models.roles import Roles
from models.tree import ModelCard
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="The model registry.")
Folder = Annotated[Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")]
Mlflow = Annotated[
    str, typer.Option(envvar="TIDEGATE_MLFLOW_URI", help="MLflow tracking server in the place of a folder.")
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Version = Annotated[str, typer.Argument(help="v1, v2, ...")]
_DEFAULT = Path(".tidegate/models")


class Which(StrEnum):
    """Names of models."""

    FRAUD = "fraud"
    CHURN = "churn"
    SEGMENTS = "segments"


class As(StrEnum):
    """Roles that can be given out."""

    CHAMPION = "champion"
    CHALLENGER = "challenger"
    SHADOW = "shadow"


@app.command(name="list")
def list_models(models: Folder = _DEFAULT, mlflow_uri: Mlflow = "", json: Json = False) -> None:
    """Show all versions and which are in use for what."""
    registry = open_registry(models, mlflow_uri)
    rows = []
    for name in (*NAMES, SEGMENTS):
        roles = registry.roles(name)
        for version in registry.versions(name):
            rows.append(described(registry.card(name, version), roles))
    if json:
        print_json(rows)
        return
    table = Table("model", "version", "role", "created", "average precision", "trained on")
    for row in rows:
        share = f" of {row['share']:.0%}" if row["share"] else ""
        quality = row["metrics"].get("average_precision")
        table.add_row(
            row["name"],
            row["version"],
            row["role"] + share,
            row["created_at"],
            f"{quality:.3f}" if isinstance(quality, float) else "",
            escape(str(row["data"].get("source", ""))),
        )
    out.print(table)


def described(card: ModelCard, roles: Roles) -> dict[str, Any]:
    """A card with the role of its version; `share` is of customers, for a challenger."""
    role = roles.of(card.version)
    return {**asdict(card), "role": role, "share": roles.share if role == "challenger" else 0.0}


@app.command()
def show(
    name: Which,
    version: Annotated[str, typer.Argument(help="v1, v2, ...; the champion if left out.")] = "",
    models: Folder = _DEFAULT,
    mlflow_uri: Mlflow = "",
    json: Json = False,
) -> None:
    """Show all that is known of a version."""
    registry = open_registry(models, mlflow_uri)
    card = registry.card(name, version or registry.champion(name))
    document = described(card, registry.roles(name))
    if json:
        print_json(document)
        return
    table = Table(show_header=False)
    for what in ("name", "version", "role", "created_at", "features_hash", "horizon_days", "trees_sha256"):
        if document[what]:
            table.add_row(what, str(document[what]))
    table.add_row("features", f"{len(card.feature_names)}: {', '.join(card.feature_names[:5])}, ...")
    for part in ("thresholds", "data", "metrics"):
        for key, value in document[part].items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            table.add_row(f"{part}: {key}", escape(shown))
    out.print(table)


@app.command()
def promote(
    name: Which,
    version: Version,
    role: Annotated[As, typer.Option("--as", help="What it is to do.")] = As.CHAMPION,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the customers that a challenger scores.")
    ] = 0.1,
    models: Folder = _DEFAULT,
    mlflow_uri: Mlflow = "",
    json: Json = False,
) -> None:
    """Put a version into use. Workers and API take it within TIDEGATE_MODELS_WATCH_S, without a restart.

    A challenger scores a share of the customers in the champion's place; a shadow scores everybody, but
    only for the topic scores.shadow.
    """
    registry = open_registry(models, mlflow_uri)
    if role is As.CHAMPION:
        roles = registry.promote(name, version)
    elif name is Which.SEGMENTS:
        raise ConfigError("segments have a champion only")
    elif role is As.CHALLENGER:
        roles = registry.challenge(name, version, share)
    else:
        roles = registry.shadow(name, version)
    _say(name, roles, json)


@app.command()
def retire(
    name: Which, version: Version, models: Folder = _DEFAULT, mlflow_uri: Mlflow = "", json: Json = False
) -> None:
    """Take the role of challenger or shadow from a version."""
    _say(name, open_registry(models, mlflow_uri).retire(name, version), json)


@app.command()
def rollback(name: Which, models: Folder = _DEFAULT, mlflow_uri: Mlflow = "", json: Json = False) -> None:
    """Put the champion before this one into use again; once more goes back one more."""
    _say(name, open_registry(models, mlflow_uri).roll_back(name), json)


def _say(name: str, roles: Roles, json: bool) -> None:
    if json:
        print_json({"name": name, **asdict(roles)})
        return
    challenger = f", {roles.challenger} challenges it for {roles.share:.0%}" if roles.challenger else ""
    shadows = f", in the shadow: {', '.join(roles.shadows)}" if roles.shadows else ""
    out.print(f"{name} {roles.champion or 'none'} is in use{challenger}{shadows}", highlight=False)
