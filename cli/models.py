"""`tidegate models`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.console import out, print_json
from models.registry import NAMES, SEGMENTS, ModelRegistry
from schemas.errors import ModelError

app = typer.Typer(no_args_is_help=True, help="The model registry.")
Folder = Annotated[Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")]
_DEFAULT = Path(".tidegate/models")


@app.command(name="list")
def list_models(
    models: Folder = _DEFAULT, json: Annotated[bool, typer.Option("--json", help="For machines.")] = False
) -> None:
    """Show all versions and which are in use."""
    registry = ModelRegistry(models)
    rows = []
    for name in (*NAMES, SEGMENTS):
        versions = registry.versions(name)
        try:
            champion = registry.champion(name)
        except ModelError:
            champion = ""
        for version in versions:
            card = registry.card(name, version)
            rows.append({**asdict(card), "role": "champion" if version == champion else ""})
    if json:
        print_json(rows)
        return
    table = Table("model", "version", "role", "created", "average precision", "trained on")
    for row in rows:
        table.add_row(
            row["name"],
            row["version"],
            row["role"],
            row["created_at"],
            f"{row['metrics'].get('average_precision', float('nan')):.3f}",
            str(row["data"].get("source", "")),
        )
    out.print(table)


@app.command()
def promote(name: str, version: str, models: Folder = _DEFAULT) -> None:
    """Put a version into use; workers and API take it at their next start."""
    ModelRegistry(models).promote(name, version)
    out.print(f"{name} {version} is in use")
