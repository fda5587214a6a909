"""The report of a backtest as one HTML file that needs nothing else."""

from pathlib import Path
from typing import Any

from harness.backtest_plots import plots
from models.backtest_report import FraudReport
from schemas.errors import ConfigError

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Backtest of {{ document.file }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: left }
th, td { border-bottom: 1px solid #ddd } td.n { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
svg { max-width: 100%; height: auto }
</style></head><body>
<h1>Backtest of {{ document.file }}</h1>
<p>Model {{ document.model.name }} {{ document.model.version }};
{{ "{:,}".format(document.scored) }} transactions from {{ document["from"] }} to {{ document.to }};
{{ "{:,}".format(document.labelled) }} with a label,
{{ "{:,}".format(document.frauds) }} of them fraud.</p>
{% for note in document.notes %}<p><strong>Note:</strong> {{ note }}.</p>{% endfor %}
<h2>Figures</h2>
<table><tr><th>figure</th><th>value</th><th>95 % interval</th></tr>
{% for name, figure in figures %}<tr><td>{{ name }}</td><td class="n">{{ number(figure.value) }}</td>
<td class="n">{{ number(figure.low) }} to {{ number(figure.high) }}</td></tr>
{% endfor %}<tr><td>Brier score</td><td class="n">{{ number(document.brier) }}</td><td></td></tr>
<tr><td>calibration error</td><td class="n">{{ number(document.calibration_error) }}</td>
<td></td></tr></table>
<div class="plots">{% for title, svg in plots.items() %}
<figure><figcaption>{{ title }}</figcaption>{{ svg | safe }}</figure>{% endfor %}</div>
<h2>Decisions</h2>
<table><tr>{% for name in document.decisions %}<th>{{ name }}</th>{% endfor %}<th>alerts a day</th></tr>
<tr>{% for count in document.decisions.values() %}<td class="n">{{ "{:,}".format(count) }}</td>{% endfor %}
<td class="n">{{ document.alerts_a_day }}</td></tr></table>
{% for title, rows in tables.items() %}{% if rows %}<h2>{{ title }}</h2>
<table><tr>{% for name in rows[0] %}<th>{{ name.replace("_", " ") }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row.values() %}<td{% if value is number_like %} class="n"{% endif %}>
{{- number(value) }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}{% endfor %}
</body></html>
"""


def write_html(path: Path, document: dict[str, Any], report: FraudReport) -> None:
    """Write the report.

    Args:
        path: Replaced if it exists.
        document: The report as JSON has it.
        report: What it was made from.

    Raises:
        ConfigError: The file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["number_like"] = lambda value: isinstance(value, int | float)
    page = environment.from_string(_PAGE).render(
        document=document,
        figures=list(report.figures()),
        plots=plots(report),
        tables={
            "Thresholds and their effect": document["thresholds"],
            "Features that raise alerts": document["top_features"],
            "Segments": document["segments"],
        },
        number=_number,
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as unwritable:
        raise ConfigError(f"{path}: cannot be written: {unwritable.strerror or unwritable}") from unwritable


def _number(value: Any) -> str:
    """A cell as a person reads it.

    >>> _number(0.123456), _number(1234), _number(None), _number(float("nan"))
    ('0.1235', '1,234', 'not defined', 'not defined')
    """
    if value is None or value != value:
        return "not defined"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
