"""Grafana dashboards as code: `python -m infra.dashboards FOLDER` writes them as JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from infra.dashboard_panels import Dashboard, Panel
from infra.score_dashboards import CHURN, FRAUD, MODELS
from infra.stream_dashboards import API, OPERATIONS

_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS: Final = 24
_COLOURS: Final = ("green", "orange", "red")
DASHBOARDS: Final = (OPERATIONS, FRAUD, CHURN, MODELS, API)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": list(dashboard.tags),
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [
            {
                "title": "Tidegate",
                "type": "dashboards",
                "tags": ["tidegate"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": list(_placed(dashboard.panels)),
    }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    x = y = row = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _COLUMNS or (row and panel.height != row):
            x, y, row = 0, y + row, 0
        row = panel.height
        yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": panel.height})
        x += panel.width


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": legend or panel.title,
            "instant": instant,
            "range": not instant,
            "format": "table" if panel.kind == "table" else "time_series",
        }
        for i, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    falling = len(panel.limits) > 1 and panel.limits[0] > panel.limits[-1]
    colours = tuple(reversed(_COLOURS)) if falling else _COLOURS
    values = [None, *(reversed(panel.limits) if falling else panel.limits)]
    steps = [{"value": v, "color": c} for v, c in zip(values, colours, strict=False)]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.unit == "percentunit":
        defaults["min"] = 0
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none"}
        defaults["custom"] = {
            "stacking": stacking,
            "fillOpacity": 30 if panel.stacked else 5,
            "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        mode = "background" if panel.limits else "value"
        return {"reduceOptions": last, "colorMode": mode, "graphMode": "area"}
    return {"reduceOptions": last, "orientation": "horizontal"} if panel.kind == "bargauge" else {}


def rendered(dashboard: Dashboard) -> str:
    """A dashboard's file."""
    return json.dumps(document(dashboard), indent=1) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (Path(sys.argv[1]) / f"{each.uid}.json").write_text(rendered(each))
