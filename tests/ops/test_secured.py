"""Worker and API over TLS and with logins; plaintext and strangers are refused."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis
from redis.exceptions import RedisError

from generator.bank import Bank
from generator.settings import BankSettings
from harness.processes import ApiProcess, WorkerProcess
from infra.access import KafkaAccess
from infra.topics_admin import TopicsAdmin
from schemas.errors import DependencyError
from tests.deployment import Deployment, Outputs
from tests.ops.certificates import Certificates, SecuredRedis, environment, secured_kafka
from tests.ops.monitoring import ROOT

pytestmark = pytest.mark.ops
BANK = BankSettings(customers=40, days=8, seed=9, start=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path / "certificates")


@pytest.fixture
def secrets(tmp_path):
    """The users that docker compose makes."""
    folder = tmp_path / "secrets"
    script = ROOT / "infra" / "docker" / "secrets.sh"
    subprocess.run(["sh", str(script), str(folder)], check=True, timeout=10, capture_output=True)
    return folder


@pytest.fixture
def redis(tmp_path, certificates, secrets):
    running = SecuredRedis(tmp_path, certificates, secrets / "redis_users.acl")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def deployment(tmp_path, registry, redis):
    running = Deployment(tmp_path, registry._root)
    running.stack.redis = redis
    running.stack.start()
    yield running
    running.close()


@pytest.fixture
def access(certificates, secrets):
    return {
        "redis_username": "tidegate",
        "redis_password_file": secrets / "redis_password",
        "redis_ca": certificates.ca,
        "redis_certificate": certificates.client,
        "redis_key": certificates.client_key,
    }


async def test_worker_and_api_against_redis_with_tls_and_users(deployment, access, tmp_path):
    await deployment.create_topics()
    await deployment.publish_bank(BANK)
    worker = deployment.worker(**access)
    api = ApiProcess(
        tmp_path, {"redis_url": deployment.stack.redis_url, "models": deployment.models, **access}
    )
    try:
        await asyncio.gather(*(asyncio.to_thread(part.start, 60) for part in (worker, api)))
        async with Outputs(deployment.stack.bootstrap) as outputs:
            await outputs.until_scored(deployment.log.ids)
        customer = next(iter(deployment.log.totals))
        with urllib.request.urlopen(f"{api.url}/customers/{customer}/scores", timeout=5) as answer:
            assert json.load(answer)["fraud"]
        with urllib.request.urlopen(f"{worker.url}/metrics", timeout=5) as answer:
            shown = answer.read().decode()
        assert 'tidegate_certificate_expiry_timestamp_seconds{use="redis client"}' in shown
        assert "tidegate_redis_up 1.0" in shown
    finally:
        api.kill()
    worker.kill()
    # Whoever checks and repairs is the same user.
    verified = command(deployment, access, "verify", "--json")
    assert verified.returncode == 0, verified.stderr
    rebuilt = command(deployment, access, "rebuild", "--yes", "--force")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert json.loads(rebuilt.stdout)["messages"] > 0


def command(deployment, access, name, *options):
    """A command against a deployment, with its login."""
    given = {f"TIDEGATE_{key.upper()}": str(value) for key, value in access.items()}
    where = {
        "TIDEGATE_REDIS_URL": deployment.stack.redis_url,
        "TIDEGATE_BOOTSTRAP": deployment.stack.bootstrap,
        "TIDEGATE_MODELS": str(deployment.models),
    }
    return subprocess.run(
        [sys.executable, "-m", "cli.main", name, *options],
        env={**environment(), **given, **where},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "missing", [("redis_username", "redis_password_file"), ("redis_certificate", "redis_key")]
)
def test_without_login_or_certificate_nothing_is_told(redis, access, secrets, missing):
    given = {f"TIDEGATE_{name.upper()}": str(value) for name, value in access.items() if name not in missing}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "state", "totals", "--redis-url", redis.url],
        env={**environment(), **given},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "does not answer" in done.stderr
    assert done.stdout == ""
    assert (secrets / "redis_password").read_text() not in done.stderr


def test_plaintext_is_refused(redis):
    with Redis(host="127.0.0.1", port=redis.port, socket_timeout=2) as client, pytest.raises(RedisError):
        client.ping()


def logged_in(redis, certificates, user, password):
    return Redis.from_url(
        redis.url,
        username=user,
        password=password.read_text(),
        ssl_ca_certs=str(certificates.ca),
        ssl_certfile=str(certificates.client),
        ssl_keyfile=str(certificates.client_key),
    )


def test_a_person_does_what_the_runbooks_say_and_lets_programs_use_another_namespace(
    redis, certificates, secrets
):
    with (
        logged_in(redis, certificates, "admin", secrets / "redis_admin") as admin,
        logged_in(redis, certificates, "tidegate", secrets / "redis_password") as program,
    ):
        assert admin.config_set("maxmemory", "2gb")
        assert admin.config_set("maxmemory-policy", "noeviction")
        assert admin.bgsave()
        with pytest.raises(RedisError, match=r"NOPERM|permission"):
            program.set("tg2:topology", 4)
        script = ROOT / "infra" / "docker" / "secrets.sh"
        subprocess.run(
            ["sh", str(script), str(secrets), "tg", "tg2"], check=True, timeout=10, capture_output=True
        )
        admin.acl_load()
        assert program.set("tg2:topology", 4)
        assert program.set("{tg2:0}:meta", 4)
        assert program.set("tg:topology", 4)


def test_users_may_do_no_more_than_the_programs_need(redis, certificates, secrets):
    with logged_in(redis, certificates, "tidegate", secrets / "redis_password") as client:
        client.set("tg:topology", 4)
        for command in (
            ("FLUSHALL",),
            ("KEYS", "*"),
            ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
            ("SET", "another:key", "1"),
            ("ACL", "LIST"),
            ("SHUTDOWN",),
        ):
            with pytest.raises(RedisError, match=r"NOPERM|permission"):
                client.execute_command(*command)


@pytest.fixture
def kafka(tmp_path, certificates, secrets):
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{missing} not installed")
    running = secured_kafka(tmp_path, certificates, (secrets / "redis_password").read_text())
    running.start()
    yield running
    running.kill()


@pytest.fixture
def kafka_access(certificates, secrets):
    return {
        "kafka_security": "sasl_ssl",
        "kafka_ca": certificates.ca,
        "kafka_certificate": certificates.client,
        "kafka_key": certificates.client_key,
        "kafka_username": "tidegate",
        "kafka_password_file": secrets / "redis_password",
    }


async def scored(bootstrap, options, wanted):
    """Transactions that have a score, read as they come."""
    consumer = AIOKafkaConsumer(
        "scores.fraud", bootstrap_servers=bootstrap, auto_offset_reset="earliest", **options
    )
    await consumer.start()
    try:
        found = []
        async with asyncio.timeout(90):
            while len(found) < wanted:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += [json.loads(record.value)["transaction_id"] for record in records]
        return found
    finally:
        await consumer.stop()


async def test_worker_against_kafka_with_sasl_ssl_and_redis_with_tls(
    kafka, redis, tmp_path, registry, access, kafka_access
):
    options = KafkaAccess(**kafka_access).options()
    await TopicsAdmin(kafka.bootstrap, options=options).create(2)
    events = [event for event in Bank(BANK).events() if event.topic == "transactions"]
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, **options)
    await producer.start()
    for event in events:
        key = str(event.message["customer_id"]).encode()
        await producer.send(event.topic, json.dumps(event.message).encode(), key=key)
    await producer.flush()
    await producer.stop()
    settings = {
        "bootstrap": kafka.bootstrap,
        "redis_url": redis.url,
        "models": registry._root,
        "instance_id": "worker-0",
        **access,
        **kafka_access,
    }
    worker = WorkerProcess(tmp_path, settings)
    try:
        await asyncio.to_thread(worker.start, 60)
        found = await scored(kafka.bootstrap, options, len(events))
        assert sorted(found) == sorted(str(event.message["transaction_id"]) for event in events)
    finally:
        worker.kill()
    assert (access["redis_password_file"]).read_text() not in worker.log_path.read_text()
    for refused in ({}, {"security_protocol": "SSL", "ssl_context": options["ssl_context"]}):
        with pytest.raises(DependencyError):
            await TopicsAdmin(kafka.bootstrap, timeout_s=3, options=refused).partitions()
