"""The reports of backtests as HTML files."""

from pathlib import Path
from typing import Any

from harness.backtest_plots import churn_plots, plots
from harness.html_page import Page, write_page
from models.backtest_report import FraudReport
from models.churn_backtest import FIGURES, ChurnReport


def write_html(path: Path, document: dict[str, Any], report: FraudReport | ChurnReport) -> None:
    """Write the report of a backtest.

    Args:
        path: Replaced if it exists.
        document: The report as JSON has it.
        report: What it was made from.

    Raises:
        ConfigError: The file cannot be written.
    """
    if isinstance(report, ChurnReport):
        write_page(path, _churn_page(document, report))
    else:
        write_page(path, _fraud_page(document, report))


def _fraud_page(document: dict[str, Any], report: FraudReport) -> Page:
    model = document["model"]
    return Page(
        f"Backtest of {document['file']}",
        paragraphs=[
            f"Model {model['name']} {model['version']}; {document['scored']:,} transactions from "
            f"{document['from']} to {document['to']}; {document['labelled']:,} with a label, "
            f"{document['frauds']:,} of them fraud.",
            *(f"Note: {note}." for note in document["notes"]),
        ],
        figures=[
            *((name, figure.value, figure.low, figure.high) for name, figure in report.figures()),
            ("Brier score", document["brier"], None, None),
            ("calibration error", document["calibration_error"], None, None),
        ],
        plots=plots(report),
        tables={
            "Decisions": [document["decisions"] | {"alerts_a_day": document["alerts_a_day"]}],
            "Thresholds and their effect": document["thresholds"],
            "Features that raise alerts": document["top_features"],
            "Segments": document["segments"],
        },
    )


def _churn_page(document: dict[str, Any], report: ChurnReport) -> Page:
    model, cut_offs = document["model"], document["cut_offs"]
    when = (
        cut_offs[0] if len(cut_offs) == 1 else f"{len(cut_offs)} moments from {cut_offs[0]} to {cut_offs[-1]}"
    )
    paragraphs = [
        f"Model {model['name']} {model['version']}: who does nothing for {document['horizon_days']} days has "
        f"left. {document['scored']:,} scored as of {when}; of {document['customers']:,} the outcome is "
        f"known, {document['left']:,} of them left."
    ]
    if report.gone:
        paragraphs.append(
            f"Note: {report.gone:,} were silent for so long that hardly anybody comes back "
            "from; they are in no value at risk."
        )
    if report.untold:
        paragraphs.append(f"Note: {report.untold:,} whose horizon is not over are in no figure.")
    paragraphs += [f"Note: {note}." for note in document["notes"]]
    return Page(
        f"Churn backtest of {document['file']}",
        paragraphs=paragraphs,
        figures=[(label, *report.figures[name]) for name, label in FIGURES if name in report.figures],
        plots=churn_plots(report),
        tables={
            "Bands": document["bands"],
            "Drivers": document["top_drivers"],
            "Calibration": document["calibration"],
        },
    )
