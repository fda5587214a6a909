"""Latency over rate as a picture."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError


def require_matplotlib() -> None:
    """Raise `ConfigError` where no picture can be drawn: before minutes of measuring."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'tidegate[train]'")


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw p50, p99 and p99.9 of a result of `run_latency` over the rate."""
    import matplotlib

    matplotlib.use("Agg")
    # Text stays text, and the same figures give the same file.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "tidegate"}
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(figsize=(7.2, 4.0))
    rates = [measured["rate"] for measured in result["rates"]]
    for name, label in (("p50", "p50"), ("p99", "p99"), ("p99_9", "p99.9")):
        # What never came has no place on the axis: the line ends.
        values = [measured["latency_ms"][name] or float("nan") for measured in result["rates"]]
        axes.plot(rates, values, marker="o", label=label)
    for measured in result["rates"]:
        if measured["saturated"] or measured["publisher_late"]:
            word = "saturated" if measured["saturated"] else "publisher late"
            axes.axvline(measured["rate"], color="grey", linestyle=":", linewidth=1)
            axes.annotate(
                word,
                (measured["rate"], 1.0),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
                color="grey",
            )
    plain = FuncFormatter(lambda value, _: f"{value:,g}")
    for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        scale("log")
        axis.set_major_formatter(plain)
    axes.set_xlabel("events a second")
    axes.set_ylabel("ms from due to readable")
    axes.grid(visible=True, which="both", linewidth=0.3)
    axes.legend()
    environment = result["environment"]
    axes.set_title(
        f"one worker, {environment['cores']} shared cores, {environment['at']}, "
        f"load {environment['load_before']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
