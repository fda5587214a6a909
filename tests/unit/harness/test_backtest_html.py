"""The report of a churn backtest as a page; that of fraud is tested through its command."""

import re

import numpy as np
import pytest

from harness.backtest_html import write_html
from models.churn import UNTOLD
from models.churn_backtest import ScoredCustomers, churn_report
from schemas.errors import ConfigError

N = 200
DOCUMENT = {
    "file": "<bank>.csv",
    "model": {"name": "churn", "version": "v3"},
    "horizon_days": 90,
    "cut_offs": ["2026-03-01T00:00:00.000Z"],
    "scored": N,
}


def block(label: np.ndarray) -> ScoredCustomers:
    proba = np.linspace(0.01, 0.99, N)
    band = (proba > 0.3).astype(np.int8) + (proba > 0.8).astype(np.int8)
    drivers = {int(row): ({"feature": "days_since_last"},) for row in np.flatnonzero(band)}
    customers = [f"c{i}" for i in range(N)]
    return ScoredCustomers(customers, 0, proba, band, proba * 100.0, label.astype(np.int8), drivers)


def page_of(tmp_path, label, **options) -> str:
    report = churn_report([block(label)], resamples=10, **options)
    path = tmp_path / "churn.html"
    write_html(path, DOCUMENT | report.document(), report)
    return path.read_text()


def test_figures_plots_bands_and_drivers_are_on_the_page(tmp_path):
    label = (np.random.default_rng(1).random(N) < np.linspace(0.0, 1.0, N)).astype(np.int8)
    page = page_of(tmp_path, label)
    assert page.count("<svg") == 5
    assert "Churn backtest of &lt;bank&gt;.csv" in page
    cells = re.findall(r"<td[^>]*>\s*([^<]*)</td>", page)
    high = cells.index("high")
    proba = np.linspace(0.01, 0.99, N)
    mine = proba > 0.8
    at_risk = f"{100.0 * proba[mine].sum():,.4g}"
    assert cells[high : high + 5] == ["high", "39", at_risk, "39", str(label[mine].sum())]
    assert cells[cells.index("days_since_last") + 1] == "141"
    assert "ROC AUC" in cells
    assert "Note:" not in page


def test_a_page_over_several_currencies_says_that_value_at_risk_mixes_them(tmp_path):
    page = page_of(tmp_path, np.arange(N) % 2, currencies={"EUR": 2, "SEK": 1})
    assert "Note: amounts are of 2 currencies (EUR 67 %, SEK 33 %) and are not converted: value" in page


def test_without_outcomes_the_page_says_so_and_shows_what_is_known(tmp_path):
    page = page_of(tmp_path, np.full(N, UNTOLD))
    assert "200 whose horizon is not over are in no figure" in page
    assert page.count("<svg") == 0
    assert "ROC AUC" not in page
    assert "<td>high</td>" in page


def test_a_page_that_cannot_be_written_is_an_error_for_people(tmp_path):
    report = churn_report([block(np.zeros(N))], resamples=1)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_html(tmp_path / "no" / "page.html", DOCUMENT | report.document(), report)
