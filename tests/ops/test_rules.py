"""Prometheus's own tool on the rules, and what it does not check."""

import json
import re

import pytest
import yaml

from cli.metrics import all_metrics
from infra.dashboards import DASHBOARDS, document, rendered
from tests.ops.monitoring import ROOT, RULES, promtool, rules

pytestmark = pytest.mark.ops
_SUFFIXES = ("", "_bucket", "_sum", "_count")


def test_promtool_accepts_configuration_and_rules():
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("path", sorted((RULES / "tests").glob("*.test.yml")), ids=lambda p: p.name)
def test_rule_unit_tests_hold(path):
    promtool("test", "rules", path.name, cwd=path.parent)


def test_every_alert_is_tested_both_ways():
    asked = "".join(path.read_text() for path in (RULES / "tests").glob("*.test.yml"))
    for rule in rules("alert"):
        assert asked.count(f'alertname="{rule["alert"]}"') >= 3, rule["alert"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    headings = re.findall(r"^## (Tidegate\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.M)
    alerts = {rule["alert"] for rule in rules("alert")}
    assert sorted(headings) == sorted(alerts)
    for rule in rules("alert"):
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def queries():
    for rule in [*rules("record"), *rules("alert")]:
        yield rule.get("record") or rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query, _ in panel.queries:
                yield f"{dashboard.uid}: {panel.title}", query


@pytest.mark.parametrize(("name", "query"), list(queries()))
def test_query_asks_only_for_what_there_is(name, query):
    metrics = {row.name + suffix for row in all_metrics() for suffix in _SUFFIXES}
    records = {rule["record"] for rule in rules("record")}
    assert set(re.findall(r"\btidegate_\w+", query)) <= metrics, name
    assert set(re.findall(r"\btidegate:[\w:]+", query)) <= records, name


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
class TestDashboard:
    def test_file_is_what_the_code_says(self, dashboard):
        path = ROOT / "infra" / "grafana" / "dashboards" / f"{dashboard.uid}.json"
        assert path.read_text() == rendered(dashboard), "run 'make generated'"

    def test_panels_do_not_overlap(self, dashboard):
        taken = set()
        for panel in document(dashboard)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            taken |= cells

    def test_panels_are_complete(self, dashboard):
        panels = document(dashboard)["panels"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "prometheus"
            legends = [target["legendFormat"] for target in panel["targets"]]
            assert all(legends), panel["title"]
            assert len(set(legends)) == len(legends), panel["title"]
            steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
            assert steps[0] is None
            assert steps[1:] == sorted(steps[1:]), panel["title"]


def test_source_of_the_dashboards_is_provisioned():
    path = ROOT / "infra" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(path.read_text())["datasources"]
    assert source["uid"] == "prometheus"
    provider = yaml.safe_load((path.parents[1] / "dashboards" / "tidegate.yml").read_text())["providers"][0]
    assert provider["type"] == "file"
    assert {json.loads(rendered(d))["uid"] for d in DASHBOARDS} == {
        path.stem for path in (ROOT / "infra" / "grafana" / "dashboards").glob("*.json")
    }
