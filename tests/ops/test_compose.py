"""docker-compose.yml and the Dockerfile, as far as they can be checked without an engine."""

import re
import stat
import subprocess
from datetime import UTC, datetime

import httpx
import pytest
import yaml
from compose_spec import PyCompose

from cli.settings import all_settings
from generator.settings import BankSettings
from harness.processes import ApiProcess, SinkProcess
from tests.deployment import Deployment, Outputs, eventually
from tests.ops.monitoring import ROOT

pytestmark = pytest.mark.ops
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text()


def test_compose_specification_accepts_the_file():
    """The parser knows no merge keys, so they are resolved first, as the compose program does."""
    plain = {name: value for name, value in COMPOSE.items() if not name.startswith("x-")}
    parsed = PyCompose.from_yaml(yaml.safe_dump(plain))
    assert set(parsed.service_names()) == set(SERVICES)


def test_a_misspelt_key_is_refused():
    wrong = {"services": {"a": {"image": "b", "healthchek": {}}}}
    with pytest.raises(ValueError, match="healthchek"):
        PyCompose.from_yaml(yaml.safe_dump(wrong))


def in_profile(*profiles):
    return {name for name, service in SERVICES.items() if set(service["profiles"]) & set(profiles)}


def test_profiles_have_what_they_promise():
    assert in_profile("minimal") == {"kafka", "redis", "topics", "models", "worker", "sink", "api"}
    assert in_profile("full") == in_profile("minimal") | {"prometheus", "grafana"}
    assert in_profile("cluster") == {"kafka-2", "kafka-3", "redis-replica"}
    assert in_profile("learn") == {"learn"}


def test_who_learns_may_write_models_and_nobody_else_who_serves():
    writes = {n for n, s in SERVICES.items() if "models:/models" in s.get("volumes", [])}
    assert writes == {"models", "learn"}


@pytest.mark.parametrize("profile", ["minimal", "full"])
def test_what_a_service_needs_is_in_its_profile(profile):
    running = in_profile(profile)
    for name in running:
        for needed, how in SERVICES[name].get("depends_on", {}).items():
            assert needed in running or how.get("required") is False, (name, needed)
            if needed in running and how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed] or SERVICES[needed].get("build"), needed


@pytest.mark.parametrize("name", sorted(SERVICES))
class TestService:
    def test_is_bounded(self, name):
        limits = SERVICES[name]["deploy"]["resources"]["limits"]
        assert limits["cpus"]
        assert limits["memory"]

    def test_is_pinned_or_built_here(self, name):
        service = SERVICES[name]
        assert "build" in service or re.fullmatch(r".+:v?\d+\.\d+\.\d+", service["image"]), service["image"]

    def test_gains_no_privileges(self, name):
        assert "no-new-privileges:true" in SERVICES[name]["security_opt"]
        assert not SERVICES[name].get("privileged")

    def test_opens_ports_on_loopback_only(self, name):
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))

    def test_holds_no_secret(self, name):
        for variable, value in SERVICES[name].get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", variable):
                assert variable.endswith("_FILE"), variable
                assert str(value).startswith("/run/secrets/"), variable

    def test_volumes_are_named_or_of_the_repository(self, name):
        for volume in SERVICES[name].get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume

    def test_secrets_are_declared(self, name):
        assert set(SERVICES[name].get("secrets", [])) <= COMPOSE["secrets"].keys()

    def test_settings_exist(self, name):
        known = {setting.variable for setting in all_settings()}
        given = {v for v in SERVICES[name].get("environment", {}) if v.startswith("TIDEGATE_")}
        assert given <= known


def settings_in_container(name, deployment, volumes):
    """What a service is told by its image and by the compose file, with addresses and folders of here."""
    stages = {s.split()[0]: s for s in re.split(r"^FROM \S+ AS ", DOCKERFILE, flags=re.M)[1:]}
    stage = stages[SERVICES[name]["build"]["target"]]
    assert f"FROM run AS {SERVICES[name]['build']['target']}\n" in DOCKERFILE
    told = re.findall(r"\b(TIDEGATE_\w+)=(\S+)", stages["run"] + stage)
    told += [(k, str(v)) for k, v in SERVICES[name]["environment"].items()]
    here = {
        "kafka:19092": deployment.stack.bootstrap,
        "redis://redis:6379/0": deployment.stack.redis_url,
        "${TIDEGATE_LOG_LEVEL:-info}": "info",
        "/models": str(deployment.models),
        **volumes,
    }
    found = {}
    for variable, value in told:
        # The server of a test knows no users.
        if "REDIS_USERNAME" in variable or "PASSWORD" in variable or variable.endswith("_PORT"):
            continue
        for there, at in here.items():
            value = value.replace(there, at)
        found[variable.removeprefix("TIDEGATE_").lower()] = value
    return found


async def test_sink_and_api_of_the_compose_file_share_what_is_kept(tmp_path, registry):
    """With their own settings, as processes: the API lists whom the sink has seen."""
    (shared,) = set(SERVICES["sink"]["volumes"]) & set(SERVICES["api"]["volumes"])
    volumes = {shared.split(":")[1]: str(tmp_path / "volume")}
    deployment = Deployment(tmp_path, registry._root, durable=False)
    deployment.stack.start()
    sink = SinkProcess(tmp_path, settings_in_container("sink", deployment, volumes))
    api = ApiProcess(tmp_path, settings_in_container("api", deployment, volumes))
    try:
        await deployment.create_topics()
        await deployment.publish_bank(
            BankSettings(customers=20, days=4, seed=3, start=datetime(2026, 1, 1, tzinfo=UTC))
        )
        sink.start()
        api.start()
        with deployment.worker():
            async with Outputs(deployment.stack.bootstrap) as outputs:
                await outputs.until_scored(deployment.log.ids)

            def listed():
                answer = httpx.get(f"{api.url}/customers?limit=200", timeout=10)
                return {c["customer_id"] for c in answer.json().get("customers", ())}

            await eventually(
                lambda: deployment.log.totals.keys() <= listed(), 60, "all customers in the list"
            )
    finally:
        for part in (api, sink):
            part.stop()
        deployment.close()


def test_own_services_have_a_read_only_root_file_system():
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_secrets_are_made_once_and_closed_to_others(tmp_path):
    folder = tmp_path / "secrets"
    script = ROOT / "infra" / "docker" / "secrets.sh"
    for _ in range(2):
        subprocess.run(["sh", str(script), str(folder)], check=True, timeout=10, capture_output=True)
        passwords = {path.name: path.read_text() for path in folder.iterdir()}
    wanted = {path["file"].rsplit("/", 1)[1] for path in COMPOSE["secrets"].values()}
    # One is for a person.
    assert set(passwords) == wanted | {"redis_admin"}
    assert stat.S_IMODE((folder / "redis_admin").stat().st_mode) == 0o600
    assert len(passwords["redis_password"]) == 48
    assert passwords["redis_password"] not in passwords["redis_users.acl"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = dict(passwords)
    subprocess.run(["sh", str(script), str(folder)], check=True, timeout=10, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


class TestDockerfile:
    def test_has_the_targets_that_compose_builds(self):
        targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))
        for service in SERVICES.values():
            if "build" in service:
                assert service["build"]["target"] in targets
                assert (ROOT / service["build"]["dockerfile"]).is_file()

    def test_base_is_pinned_and_everything_installed_is_hashed(self):
        assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-\S+$", DOCKERFILE, re.M)
        installed = re.findall(r"\bpip .*(?:install|wheel) .*", DOCKERFILE)
        for line in installed:
            assert "--require-hashes" in line or "--no-deps" in line, line

    def test_runs_as_nobody_and_looks_after_itself(self):
        stages = {s.split()[0]: s for s in re.split(r"^FROM \S+ AS ", DOCKERFILE, flags=re.M)[1:]}
        assert "USER 10001:10001" in stages["run"]
        for target in ("worker", "sink", "api"):
            assert "HEALTHCHECK" in stages[target]
            assert "USER" not in stages[target]

    def test_copies_what_the_context_lets_through(self):
        let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M))
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M):
            for source in line.split()[:-1]:
                assert source in let_through, source
                assert (ROOT / source).exists(), source

    def test_copies_every_room(self):
        copied = {
            s for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M) for s in line.split()[:-1]
        }
        pyproject = (ROOT / "pyproject.toml").read_text()
        packages = re.search(r"^packages = \[(.+)\]$", pyproject, re.M)
        assert packages
        assert {p.split(".")[0] for p in re.findall(r'"([^"]+)"', packages[1])} <= copied
