"""`tidegate schemas`."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import err
from schemas.export import documents

app = typer.Typer(no_args_is_help=True, help="Message schemas.")


@app.callback()
def schemas() -> None:
    """Message schemas."""


@app.command()
def export(folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path("schemas/json")) -> None:
    """Write JSON Schema files and the AsyncAPI document."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents().items():
        (folder / name).write_text(text)
    err.print(f"wrote {len(documents())} files under {folder}")
