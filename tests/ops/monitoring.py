"""A real Prometheus beside a deployment, with shortened times."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.embedded_part import EmbeddedPart

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "infra" / "prometheus"
_UNPACKED = ROOT / ".tidegate" / "tools"


def tool(name: str) -> str:
    """Path of a program that is not a Python package; missing, CI fails and a developer's run skips."""
    unpacked = [str(_UNPACKED / "usr" / "bin"), str(_UNPACKED / "bin")]
    found = shutil.which(name, path=os.pathsep.join([*unpacked, os.environ.get("PATH", "")]))
    if found is None:
        why = f"{name} is not installed: run 'make tools'"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return found


class Prometheus(EmbeddedPart):
    """Prometheus that looks every second, with the repository's rules made quicker.

    Args:
        folder: Data and log.
        targets: Addresses by job.
    """

    name = "prometheus"
    stop_timeout_s = 5.0

    def __init__(self, folder: Path, targets: dict[str, list[str]]) -> None:
        super().__init__(folder)
        self.targets = targets

    def _command(self) -> list[str]:
        program = tool("prometheus")
        self.directory.mkdir(parents=True, exist_ok=True)
        files = []
        for path in sorted(RULES.glob("*.rules.yml")):
            rules = yaml.safe_load(path.read_text())
            for group in rules["groups"]:
                group["interval"] = "1s"
                for rule in group["rules"]:
                    if "for" in rule:
                        rule["for"] = "1s"
            quick = self.directory / path.name
            quick.write_text(yaml.safe_dump(rules))
            files.append(str(quick))
        jobs = [
            {"job_name": job, "static_configs": [{"targets": addresses}]}
            for job, addresses in self.targets.items()
        ]
        config = self.directory / "prometheus.yml"
        timing = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config.write_text(yaml.safe_dump({"global": timing, "rule_files": files, "scrape_configs": jobs}))
        return [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}",
            "--enable-feature=exemplar-storage",
        ]

    def _dialogue(self, pid: int) -> tuple[bytes, tuple[bytes, ...]]:
        return b"GET /-/ready HTTP/1.0\r\n\r\n", (b"Ready",)

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self.address}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Series of an instant query; its ranges of a dashboard are a few seconds."""
        found: list[dict[str, Any]] = self.get(
            "/api/v1/query", query=promql.replace("$__rate_interval", "10s")
        )["result"]
        return found

    def traces(self, histogram: str) -> set[str]:
        """Ids of the traces that exemplars of a histogram name, of the last minutes."""
        now = time.time()
        series = self.get(
            "/api/v1/query_exemplars", query=f"{histogram}_bucket", start=str(now - 600), end=str(now + 10)
        )
        return {e["labels"]["trace_id"] for one in series for e in one["exemplars"]}

    def firing(self) -> set[str]:
        return {
            a["labels"]["alertname"] for a in self.get("/api/v1/alerts")["alerts"] if a["state"] == "firing"
        }

    async def until_firing(self, alert: str, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while alert not in (firing := await asyncio.to_thread(self.firing)):
            assert asyncio.get_running_loop().time() < deadline, f"{alert} does not fire, only {firing}"
            await asyncio.sleep(0.2)


def rules(kind: str) -> list[dict[str, Any]]:
    """Rules of the repository: `record` or `alert`."""
    return [
        rule
        for path in sorted(RULES.glob("*.rules.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


def promtool(*arguments: str, cwd: Path = RULES) -> str:
    """Run promtool; its words on failure are the test's."""
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts_named_in(text: str) -> set[str]:
    return set(re.findall(r"Tidegate[A-Z]\w+", text))
