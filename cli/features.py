"""`tidegate features`."""

from typing import Annotated

import typer
from rich.table import Table

from cli.console import out, print_json
from features.catalogue import FEATURES, FEATURES_HASH
from features.definitions import Feature
from features.describe import entities_markdown, markdown, window
from features.entities import ENTITY_FEATURES, EntityFeature

app = typer.Typer(no_args_is_help=True, help="Feature declarations.")


@app.callback()
def features() -> None:
    """Feature declarations."""


@app.command(name="list")
def list_features(
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/features.md.")] = False,
) -> None:
    """Print the features with window, unit and meaning."""
    every: tuple[Feature | EntityFeature, ...] = (*FEATURES, *ENTITY_FEATURES)
    if as_markdown:
        print(markdown(FEATURES) + entities_markdown(ENTITY_FEATURES), end="")
    elif json:
        print_json(
            [
                {
                    "name": f.name,
                    "category": f.category,
                    "op": f.op,
                    "window": f.window,
                    "ends": f.ends,
                    "unit": f.unit,
                    "meaning": f.meaning,
                }
                for f in every
            ]
        )
    else:
        table = Table(
            "feature", "category", "window", "unit", "meaning", title=f"declarations {FEATURES_HASH}"
        )
        for f in every:
            table.add_row(f.name, f.category, window(f), f.unit, f.meaning)
        out.print(table)
