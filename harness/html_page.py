"""What HTML reports share: one file each, which needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError

_BASE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; text-align: left }
th, td { border-bottom: 1px solid #ddd } td.n { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
svg { max-width: 100%; height: auto }
</style></head><body>
<h1>{{ page.title }}</h1>
{% for paragraph in page.paragraphs %}<p>{{ paragraph }}</p>{% endfor %}
<h2>Figures</h2>
<table><tr><th>figure</th><th>value</th><th>95 % interval</th></tr>
{% for name, value, low, high in page.figures %}<tr><td>{{ name }}</td><td class="n">{{ number(value) }}</td>
<td class="n">{% if low is not none %}{{ number(low) }} to {{ number(high) }}{% endif %}</td></tr>
{% endfor %}</table>
<div class="plots">{% for name, svg in page.plots.items() %}
<figure><figcaption>{{ name }}</figcaption>{{ svg | safe }}</figure>{% endfor %}</div>
{% for name, rows in page.tables.items() %}{% if rows %}<h2>{{ name }}</h2>
<table><tr>{% for column in rows[0] %}<th>{{ column.replace("_", " ") }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row.values() %}<td{% if value is number_like %} class="n"{% endif %}>
{{- number(value) }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}{% endfor %}
</body></html>
"""

Figure = tuple[str, float | None, float | None, float | None]
"""Name, value, and the ends of its interval; none for no interval."""


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a page.

    Attributes:
        paragraphs: At its head.
        plots: SVG by title.
        tables: Rows by title, each by the names of the columns; a title without rows is left out.
    """

    title: str
    paragraphs: Sequence[str]
    figures: Sequence[Figure]
    plots: dict[str, str]
    tables: dict[str, list[dict[str, Any]]]


def write_page(path: Path, page: Page) -> None:
    """Write a report.

    Args:
        path: Replaced if it exists.
        page: What stands on it.

    Raises:
        ConfigError: The file cannot be written.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.tests["number_like"] = lambda value: isinstance(value, int | float)
    text = environment.from_string(_BASE).render(page=page, number=_number)
    try:
        path.write_text(text, encoding="utf-8")
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
