"""The README's commands do what it says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.processes import ApiProcess, WorkerProcess
from infra.embedded import EmbeddedStack

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
TIDEGATE = [command.removeprefix(".venv/bin/tidegate ") for command in COMMANDS if "tidegate " in command]


def run(arguments, timeout_s=240):
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_readme_names_the_commands_tested_here():
    assert [command.split()[0] for command in TIDEGATE] == ["topics", "train", "worker", "sink", "api"]
    assert [c for c in COMMANDS if c.startswith("make")] == ["make demo", "make test"]


@pytest.mark.parametrize("target", ["demo", "test", "check", "faults", "generated", "lock", "audit"])
def test_make_target_exists(target):
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def train_smaller(folder, *options):
    (train,) = [c for c in TIDEGATE if c.startswith("train")]
    # Smaller than the default: what is tested is the command, not the model.
    smaller = ["--customers", "400", "--days", "140", "--models", str(folder), "--json"]
    done = run([*train.split(), *smaller, *options])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    trained = train_smaller(folder)
    assert {model["name"] for model in trained} == {"fraud", "churn", "segments", "anomaly"}
    assert all(m["metrics"]["roc_auc"] > 0.7 for m in trained if m["name"] in ("fraud", "churn"))
    return folder


def test_commands_against_a_broker_and_redis_work(models, tmp_path):
    with EmbeddedStack(tmp_path) as stack:
        (topics,) = [c for c in TIDEGATE if c.startswith("topics")]
        done = run([*topics.replace("localhost:9092", stack.bootstrap).split(), "--json"])
        assert done.returncode == 0, done.stderr
        assert {row["partitions"] for row in json.loads(done.stdout)} == {8}
        settings = {"bootstrap": stack.bootstrap, "redis_url": stack.redis_url, "models": models}
        worker, api = WorkerProcess(tmp_path, settings), ApiProcess(tmp_path, settings)
        with worker, api:
            assert worker.running
            assert api.running


def test_demo_scores_every_event_once_and_ends_by_itself(tmp_path):
    train_smaller(tmp_path, "--entities", "merchant,device")
    done = run(
        ["demo", "--json", "--customers", "200", "--days", "20", "--seconds", "5", "--models", str(tmp_path)]
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    # Of the ones it was given: it trains some of its own where those are of other declarations.
    assert "training models" not in done.stderr
    assert summary["events_in"] == summary["fraud_scores_out"] > 1000
    assert summary["repeated_scores"] == 0
    assert sum(summary["dead_letters"].values()) == summary["bad_messages_sent"] == 5
    assert summary["churn_scores_out"] > 0
    assert summary["latency_ms"]["events"] > 0


def test_error_is_one_sentence_and_no_traceback(tmp_path):
    done = run(["models", "promote", "fraud", "v9", "--models", str(tmp_path)])
    assert done.returncode == 2
    assert "no fraud model v9" in done.stderr
    assert "Traceback" not in done.stderr
