"""Plots of a backtest, as SVG to stand inside a page."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from features.definitions import DAY_MS
from models.backtest_report import FraudReport
from models.churn_backtest import ChurnReport
from models.evaluation import Ranking

_MOST_POINTS = 400


def plots(report: FraudReport) -> dict[str, str]:
    """SVG by title; without what the figures do not allow.

    Args:
        report: Of a fraud backtest.
    """
    drawn = {"Alerts a day": _svg(lambda axes: _alerts(axes, report))}
    ranked = _ranked(report.judged.y, report.judged.score)
    if ranked:
        drawn |= ranked | {
            "Calibration": _svg(lambda axes: _calibration(axes, report)),
            "Value found by threshold": _svg(lambda axes: _value(axes, report)),
        }
    return drawn


def churn_plots(report: ChurnReport) -> dict[str, str]:
    """SVG by title; without what the figures do not allow.

    Args:
        report: Of a churn backtest.
    """
    drawn = _ranked(report.y, report.proba)
    if drawn:
        drawn |= {
            "Found by share of customers called": _svg(lambda axes: _gains(axes, report)),
            "Calibration": _svg(lambda axes: _churn_calibration(axes, report)),
        }
    if len(report.proba):
        drawn["Probabilities"] = _svg(lambda axes: _spread(axes, report))
    return drawn


def _ranked(y: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> dict[str, str]:
    curves = Ranking(y, score).curves()
    if curves is None:
        return {}
    return {
        "ROC": _svg(
            lambda axes: _curve(axes, curves.fpr, curves.recall, "false positives", "recall", (0.0, 1.0))
        ),
        "Precision and recall": _svg(
            lambda axes: _curve(axes, curves.recall, curves.precision, "recall", "precision", None)
        ),
    }


def _gains(axes: Any, report: ChurnReport) -> None:
    found = np.cumsum(report.y[np.argsort(-report.proba, kind="stable")])
    called = np.arange(1, len(found) + 1) / len(found)
    _curve(axes, called, found / found[-1], "share of customers called", "share of leavers found", (0.0, 1.0))


def _churn_calibration(axes: Any, report: ChurnReport) -> None:
    predicted, found, _ = zip(*report.bins, strict=True)
    axes.plot(predicted, found, marker="o")
    axes.plot((0, 1), (0, 1), linestyle=":", color="grey")
    axes.set(xlabel="predicted share of leavers", ylabel="found share", xlim=(0, 1), ylim=(0, 1.02))


def _spread(axes: Any, report: ChurnReport) -> None:
    edges = np.linspace(0, 1, 21)
    axes.hist(
        [report.proba[report.y], report.proba[~report.y]], edges, stacked=True, label=("left", "stayed")
    )
    axes.legend()
    axes.set(xlabel="churn probability", ylabel="customers", xlim=(0, 1))


def _svg(draw: Callable[[Any], None]) -> str:
    # Imported only where a report is asked for; no display is needed, and none is looked for.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    draw(figure.add_subplot())
    text = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(text)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _curve(axes: Any, x: Any, y: Any, x_name: str, y_name: str, diagonal: tuple[float, float] | None) -> None:
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    axes.plot(x[shown], y[shown], drawstyle="steps-post")
    if diagonal is not None:
        axes.plot(diagonal, diagonal, linestyle=":", color="grey")
    axes.set(xlabel=x_name, ylabel=y_name, xlim=(0, 1), ylim=(0, 1.02))


def _calibration(axes: Any, report: FraudReport) -> None:
    found = report.calibration
    if found is None:
        return
    axes.plot(found.predicted, found.found, marker="o")
    low = max(float(min(found.predicted.min(), 1.0)), 1e-6)
    axes.plot((low, 1), (low, 1), linestyle=":", color="grey")
    axes.set(xlabel="predicted share of fraud", ylabel="found share", xscale="log", yscale="symlog")
    axes.set_yscale("symlog", linthresh=max(low, 1e-4))


def _alerts(axes: Any, report: FraudReport) -> None:
    days = report.scored.time_ms // DAY_MS
    first = int(days.min()) if len(days) else 0
    for code, name in ((1, "review"), (2, "block")):
        counts = np.bincount((days[report.scored.decisions == code] - first).astype(int))
        axes.plot(counts, label=name)
    axes.legend()
    axes.set(xlabel="day", ylabel="alerts", ylim=(0, None))


def _value(axes: Any, report: FraudReport) -> None:
    shares = [effect.share for effect in report.effects]
    axes.plot(shares, [effect.value_share for effect in report.effects], marker="o", label="amount of frauds")
    axes.plot(shares, [effect.recall for effect in report.effects], marker="o", label="number of frauds")
    axes.plot(shares, [effect.precision for effect in report.effects], linestyle=":", label="precision")
    axes.legend()
    axes.set(xlabel="share of transactions alerted", ylabel="share found", xscale="log", ylim=(0, 1.02))
