"""The Helm chart, rendered and checked against Kubernetes' own schemas."""

import subprocess

import kubernetes_validate
import pytest
import yaml

from cli.main import load
from cli.settings import all_settings
from tests.ops.monitoring import ROOT, tool

pytestmark = pytest.mark.ops
CHART = ROOT / "infra" / "helm" / "tidegate"
# Defined by operators; Kubernetes' schemas do not have them.
CUSTOM = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}
VERSIONS = ("1.27", "1.33")
SECURED = (
    "kafka.security=sasl_ssl,kafka.username=tidegate,kafka.passwordSecret=kafka,kafka.tlsSecret=kafka-tls,"
    "kafka.clientCertificate=true,redis.url=rediss://redis:6379/0,redis.username=tidegate,"
    "redis.passwordSecret=redis,redis.tlsSecret=redis-tls,redis.clientCertificate=true,"
    "worker.scaling.enabled=true,serviceMonitor.enabled=true,learn.enabled=true,sink.enabled=true,"
    "eventLog.existingClaim=events,database.urlSecret=database,security.existingSecret=keys,api.auditClaim=audit"
)


def helm(*arguments):
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, timeout=60)


def rendered(values="", version="1.33"):
    chosen = ["--set", values] if values else []
    done = helm(
        "template",
        "t",
        str(CHART),
        "--kube-version",
        version,
        "--set",
        "models.existingClaim=models",
        *chosen,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents, kind):
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pods(documents):
    for document in documents:
        if document["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def test_lint_finds_nothing():
    done = helm("lint", str(CHART), "--strict", "--set", "models.existingClaim=models")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("values", ["", SECURED], ids=["default", "secured"])
@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_kubernetes_accept_everything(values, version):
    checked = 0
    for document in rendered(values, version):
        if document["kind"] not in CUSTOM:
            kubernetes_validate.validate(document, version, strict=True)
            checked += 1
    assert checked >= 10


def test_a_misspelt_field_is_refused():
    document = of_kind(rendered(), "StatefulSet")["t-tidegate-worker"]
    document["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("values", ["", SECURED], ids=["default", "secured"])
def test_pods_are_confined_and_bounded(values):
    found = list(pods(rendered(values)))
    expected = {"topics", "worker", "api"} | ({"learn", "sink"} if "learn" in values else set())
    assert {name for name, _ in found} == {f"t-tidegate-{name}" for name in expected}
    for name, spec in found:
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes, name
        if name != "t-tidegate-topics":
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()


@pytest.mark.parametrize("values", ["", SECURED], ids=["default", "secured"])
def test_variables_are_settings_and_passwords_are_files(values):
    known = {setting.variable for setting in all_settings()}
    for name, spec in pods(rendered(values)):
        (container,) = spec["containers"]
        variables = {v["name"]: v.get("value") for v in container["env"]}
        assert len(variables) == len(container["env"]), f"{name}: a variable is given twice"
        # Only to be named by another one.
        assert variables.keys() - {"POD_NAME"} <= known, name
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        for variable, value in variables.items():
            if value and value.startswith("/"):
                assert any(value == m or value.startswith(f"{m}/") for m in mounts), (name, variable)
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE"), variable


def test_own_settings_win_over_the_charts():
    documents = rendered("worker.settings.TIDEGATE_CHUNK_RECORDS=500,settings.TIDEGATE_CHUNK_RECORDS=900")
    env = dict(pods(documents))["t-tidegate-worker"]["containers"][0]["env"]
    assert [v["value"] for v in env if v["name"] == "TIDEGATE_CHUNK_RECORDS"] == ["500"]


def test_services_and_monitors_find_their_pods():
    documents = rendered(SECURED)
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in documents
        if document["kind"] in {"StatefulSet", "Deployment"}
    }
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        for name, document in of_kind(documents, kind).items():
            spec = document["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            selector = selector.get("matchLabels", selector)
            assert selector.items() <= labels[name].items(), (kind, name)
    services = of_kind(documents, "Service")
    for name, monitor in of_kind(documents, "ServiceMonitor").items():
        service = services[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_what_learns_is_one_pod_that_alone_may_write_models():
    documents = rendered(
        "learn.enabled=true,learn.role=challenger,learn.share=0.25,learn.labels=10,learn.seconds=5"
    )
    deployment = of_kind(documents, "Deployment")["t-tidegate-learn"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    writing = set()
    for name, spec in pods(documents):
        (container,) = spec["containers"]
        claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
        mounts = [m for m in container["volumeMounts"] if m["name"] == "models"]
        for part in (*claims, *mounts):
            if not part["readOnly"]:
                writing.add(name)
    assert writing == {"t-tidegate-learn"}
    (container,) = deployment["template"]["spec"]["containers"]
    # Click reads them as the pod would be started.
    assert container["args"][0] == "learn"
    context = load("learn").make_context("learn", container["args"][1:])
    given = context.params
    assert (given["role"].value, given["share"], given["labels"], given["seconds"]) == (
        "challenger",
        0.25,
        10,
        5,
    )
    monitoring = of_kind(documents, "NetworkPolicy")["t-tidegate-learn"]["spec"]["ingress"]
    assert [port["port"] for rule in monitoring for port in rule["ports"]] == [9100]


def test_what_the_sink_keeps_is_where_the_api_looks_for_it():
    documents = rendered("sink.enabled=true,eventLog.existingClaim=events,database.urlSecret=database")
    found = dict(pods(documents))
    (sink,), (api,) = (found[f"t-tidegate-{name}"]["containers"] for name in ("sink", "api"))
    for name in ("TIDEGATE_EVENTS", "TIDEGATE_DATABASE_URL"):
        ours, theirs = (next(v for v in part["env"] if v["name"] == name) for part in (sink, api))
        assert ours == theirs, name
    reads = {m["mountPath"]: m.get("readOnly") for m in api["volumeMounts"]}
    assert (reads["/data"], {m["mountPath"] for m in sink["volumeMounts"]}) == (True, {"/tmp", "/data"})
    deployment = of_kind(documents, "Deployment")["t-tidegate-sink"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    assert load("sink").make_context("sink", sink["args"][1:]).params["events"] is None


@pytest.mark.parametrize(
    ("component", "ports"),
    [("worker", {53, 6379, 9092}), ("sink", {53, 9092, 5432}), ("api", {53, 6379, 9092, 5432})],
)
def test_pods_reach_what_they_need_and_nothing_else(component, ports):
    policy = of_kind(rendered(SECURED), "NetworkPolicy")[f"t-tidegate-{component}"]["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == ports


def test_without_a_sink_the_api_needs_no_database():
    documents = rendered()
    (api,) = dict(pods(documents))["t-tidegate-api"]["containers"]
    assert "TIDEGATE_DATABASE_URL" not in {v["name"] for v in api["env"]}
    policy = of_kind(documents, "NetworkPolicy")["t-tidegate-api"]["spec"]
    assert 5432 not in {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_workers_never_outnumber_partitions():
    documents = rendered(SECURED + ",kafka.partitions=4,worker.scaling.maxReplicas=20")
    (scaled,) = of_kind(documents, "ScaledObject").values()
    assert scaled["spec"]["maxReplicaCount"] == 4
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["tls"] == "enable"
    assert trigger["metadata"]["sasl"] == "scram_sha512"
    assert trigger["authenticationRef"]["name"] in of_kind(documents, "TriggerAuthentication")
    assert "replicas" not in of_kind(documents, "StatefulSet")["t-tidegate-worker"]["spec"]


def test_worker_has_time_to_drain():
    (spec,) = [spec for name, spec in pods(rendered()) if name == "t-tidegate-worker"]
    drain = next(float(s.default) for s in all_settings() if s.variable == "TIDEGATE_DRAIN_S")
    assert spec["terminationGracePeriodSeconds"] > drain + 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("kafka.security=tls", "kafka"),
        ("kafka.securty=ssl", "securty"),
        ("kafka.security=sasl_ssl", "kafka.username"),
        ("models.existingClaim=", "models.existingClaim"),
        ("settings.LOG=1", "LOG"),
        ("learn.role=king", "role"),
        ("sink.enabled=true,database.urlSecret=d", "eventLog.existingClaim"),
        ("sink.enabled=true,eventLog.existingClaim=e", "database.urlSecret"),
    ],
)
def test_wrong_values_are_refused_with_their_name(values, words):
    done = helm(
        "template", "t", str(CHART), "--kube-version", "1.33", "--set", f"models.existingClaim=m,{values}"
    )
    assert done.returncode != 0
    assert words in done.stderr
