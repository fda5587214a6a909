"""What commands print, and where: results on standard output, everything for people on standard error."""

import math
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

out = Console()
err = Console(stderr=True)


def fail(message: str) -> None:
    """One sentence of error."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def interval(low: float, high: float) -> str:
    """A confidence interval; nothing where there is none, for want of resamples.

    >>> interval(0.12345, 0.2), interval(math.nan, math.nan)
    ('0.1235 to 0.2000', '')
    """
    return "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"


def print_json(document: Any) -> None:
    """JSON for machines, on one line of standard output."""
    print(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY).decode())


def progress() -> Progress:
    """A progress display on standard error; silent off a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    )
