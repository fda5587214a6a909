"""`tidegate models`."""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli.console import err, out, print_json
from infra.model_store import open_registry
from models.anomaly import ANOMALY
from models.registry import NAMES, SEGMENTS, ModelRegistry
from models.roles import Roles
from models.tree import ModelCard
from schemas.errors import ConfigError, ModelError

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
    ANOMALY = "anomaly"
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
    for name in (*NAMES, ANOMALY, SEGMENTS):
        roles = registry.roles(name)
        for version in registry.versions(name):
            try:
                rows.append(described(registry.card(name, version), roles))
            except ModelError as damaged:
                # The others are what one looks for then.
                role = roles.of(version)
                rows.append({"name": name, "version": version, "role": role, "damaged": str(damaged)})
    if json:
        print_json(rows)
        return
    table = Table("model", "version", "role", "created", "average precision", "trained on")
    for row in rows:
        if "damaged" in row:
            table.add_row(row["name"], row["version"], row["role"], "", "damaged", escape(row["damaged"]))
            continue
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
    """A card with the role of its version; `share` is of customers, for a challenger.

    Without the distributions of its columns and what labels have taught, which are for programs and a hundred
    times as long.
    """
    role = roles.of(card.version)
    said = asdict(replace(card, reference={}, correction={}))
    return {**said, "role": role, "share": roles.share if role == "challenger" else 0.0}


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
def compare(
    name: Which,
    first: Version,
    second: Version,
    data: Annotated[Path | None, typer.Option(help="Measure both on this CSV or Parquet file.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file that says which column is what.")] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Compare rows since this time (UTC)."),
    ] = None,
    to: Annotated[str | None, typer.Option(help="Compare rows before this time (UTC).")] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(help="How long after a transaction its label is known; else what the mapping says."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=20, help="Draws of the bootstrap.")] = 300,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as in training."),
    ] = None,
    models: Folder = _DEFAULT,
    mlflow_uri: Mlflow = "",
    json: Json = False,
) -> None:
    """Two versions side by side: what their cards say, or what they reach on a file.

    On a file both score the same rows, and the differences have 95 % confidence intervals from a paired
    bootstrap over customers.
    """
    registry = open_registry(models, mlflow_uri)
    cards = [registry.card(name, version) for version in (first, second)]
    if (data is None) != (mapping is None):
        raise ConfigError("--data and --mapping go together: the file, and what its columns mean")
    if data is None or mapping is None:
        if json:
            print_json({"name": name, "versions": {c.version: dict(c.metrics) for c in cards}})
            return
        _print_cards(cards)
        return
    if name in (Which.SEGMENTS, Which.ANOMALY):
        raise ConfigError(f"{name.value}: there is no outcome that it could be measured by")
    # XGBoost, Arrow and scikit-learn take seconds to import: `list` does without.
    from cli.compare import Comparison, compare_on_file, print_contest

    plan = Comparison(data, mapping, from_, to, label_delay, features, resamples)
    found = compare_on_file(registry, cards, plan)
    if json:
        print_json({"name": name, "first": first, "second": second, **found.document()})
        return
    print_contest(found, first, second)
    why = found.why.replace("the challenger", second)
    out.print(why, highlight=False, soft_wrap=True)


def _print_cards(cards: list[ModelCard]) -> None:
    table = Table("figure of the card", *(card.version for card in cards))
    for key in dict.fromkeys(key for card in cards for key in card.metrics):
        values = [card.metrics.get(key, "") for card in cards]
        if not any(isinstance(value, dict) for value in values):
            table.add_row(key, *(f"{v:.4f}" if isinstance(v, float) else escape(str(v)) for v in values))
    for card in cards:
        held = card.metrics.get("held_back")
        if isinstance(held, dict):
            out.print(f"{card.version}: {held['why']}", highlight=False, soft_wrap=True)
    out.print(table)
    out.print("each measured on its own held-back days: --data measures both on the same", highlight=False)


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
    before = registry.roles(name).champion
    if role is As.CHAMPION:
        roles = registry.promote(name, version)
    elif name in (Which.SEGMENTS, Which.ANOMALY):
        raise ConfigError(f"{name.value}: it has a champion only")
    elif role is As.CHALLENGER:
        roles = registry.challenge(name, version, share)
    else:
        roles = registry.shadow(name, version)
    _say(name, roles, json)
    _warn_of_others(registry, registry.card(name, version), before)


@app.command()
def retire(
    name: Which, version: Version, models: Folder = _DEFAULT, mlflow_uri: Mlflow = "", json: Json = False
) -> None:
    """Take the role of challenger or shadow from a version; an anomaly model can be retired as champion."""
    _say(name, open_registry(models, mlflow_uri).retire(name, version), json)


@app.command()
def rollback(name: Which, models: Folder = _DEFAULT, mlflow_uri: Mlflow = "", json: Json = False) -> None:
    """Put the champion before this one into use again; once more goes back one more."""
    _say(name, open_registry(models, mlflow_uri).roll_back(name), json)


def _warn_of_others(registry: ModelRegistry, card: ModelCard, before: str) -> None:
    try:
        declared = registry.card(card.name, before).features_hash if before else card.features_hash
    except ModelError:
        return
    if declared != card.features_hash:
        err.print(
            f"{card.name} {card.version} was trained on other feature declarations than {before}: workers "
            "and API refuse it, and go on with what they have, until they are started with its features, "
            "entities and attributes",
            highlight=False,
            soft_wrap=True,
        )


def _say(name: str, roles: Roles, json: bool) -> None:
    if json:
        print_json({"name": name, **asdict(roles)})
        return
    challenger = f", {roles.challenger} challenges it for {roles.share:.0%}" if roles.challenger else ""
    shadows = f", in the shadow: {', '.join(roles.shadows)}" if roles.shadows else ""
    out.print(f"{name} {roles.champion or 'none'} is in use{challenger}{shadows}", highlight=False)
