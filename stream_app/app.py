"""Where the worker is put together and run."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime

import faust
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

import stream_app.transport as transport
from features import lifetime
from features.entity_features import entity_features
from infra.access import KafkaAccess, expires, from_environment
from infra.batch_producer import BatchProducer
from infra.contact_vault import ContactVault
from infra.feature_file import load_engine
from infra.history_store import RedisHistoryStore
from infra.kms import master_keys
from infra.log_tail import LogTail
from infra.measured import MeasuredHistoryStore, MeasuredProducer
from infra.metrics import WorkerMetrics
from infra.model_store import open_registry
from infra.partitioning import partition_for
from infra.spans import score_span
from infra.topics_admin import TopicsAdmin
from infra.transactional_producer import TransactionalProducer
from models.in_use import ModelsInUse
from models.model_set import Models
from schemas.errors import ConfigError, DependencyError, TidegateError
from schemas.fields import to_rfc3339
from schemas.topics import FRAUD_SCORES, TRANSACTIONS
from stream_app.agents import INPUTS, add_agents
from stream_app.collector import collect_rarely
from stream_app.delivery import Delivery, Placement
from stream_app.liveness import Liveness
from stream_app.model_watch import ModelWatch
from stream_app.ports import LogRange
from stream_app.profiles import Seal
from stream_app.retry import Interrupted, Retry
from stream_app.settings import WorkerSettings
from stream_app.vitals import Vitals
from stream_app.worker import Worker

_log = structlog.get_logger()
_LEAST_STOP_S = 1.0


class _FaustLog:
    """What the worker asks of the log, answered by Faust's consumer and a plain one."""

    def __init__(self, app: faust.App, tail: LogTail, timeout_s: float) -> None:
        self._app = app
        self._tail = tail
        self._timeout_s = timeout_s

    async def ranges(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], LogRange]:
        bounds = await self.bounds(partitions)
        try:
            async with asyncio.timeout(self._timeout_s):
                committed = {tp: await self._app.consumer.committed(TP(*tp)) for tp in bounds}
        except (TimeoutError, OSError, KafkaError) as error:
            raise DependencyError("Kafka does not say what the group committed") from error
        return {tp: LogRange(*bounds[tp], committed[tp]) for tp in bounds}

    async def bounds(
        self, partitions: Iterable[tuple[str, int]]
    ) -> Mapping[tuple[str, int], tuple[int, int]]:
        return await self._tail.bounds(partitions)

    async def seek_to_stored(self, partitions: set[tuple[str, int]]) -> None:
        await self._app.consumer.seek_to_stored({TP(*tp) for tp in partitions})

    def seeks(self, topic: str, partition: int) -> int:
        return int(self._app.consumer.seeks(topic, partition))

    def check(self) -> None:
        self._app.consumer.check()

    def assigned(self) -> set[tuple[str, int]]:
        return set() if self._app.rebalancing else {tuple(tp) for tp in self._app.consumer.assignment()}

    async def position(self, topic: str, partition: int) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                return int(await self._app.consumer.position(TP(topic, partition)))
        except (TimeoutError, OSError, KafkaError) as error:
            raise DependencyError("Kafka's consumer does not say where it is") from error

    def delivered(self, topic: str, partition: int) -> int | None:
        offset: int | None = self._app.consumer.delivered(topic, partition)
        return offset

    def end(self, topic: str, partition: int) -> int | None:
        offset: int | None = self._app.consumer.end(topic, partition)
        return offset


def create_faust_app(settings: WorkerSettings, kafka: KafkaAccess | None = None) -> faust.App:
    """The Faust application, without its worker."""
    return faust.App(
        settings.group,
        broker=";".join(f"{transport.SCHEME}://{host.strip()}" for host in settings.bootstrap.split(",")),
        broker_credentials=_credentials(kafka or KafkaAccess()),
        store="memory://",
        datadir=os.path.join(tempfile.gettempdir(), "tidegate-faust"),
        autodiscover=False,
        # No web server: Faust's is open to all and shows its state.
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # The drain is the worker's own: Faust's waits without a limit.
        stream_wait_empty=False,
        broker_max_poll_records=settings.chunk_records,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_request_timeout=max(60.0, settings.session_timeout_s),
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        # Added partitions are noticed within it, and end the worker: until then who moved is in two.
        consumer_metadata_max_age_ms=30_000,
        consumer_group_instance_id=settings.instance_id or None,
    )


def _credentials(kafka: KafkaAccess) -> faust.SASLCredentials | faust.SSLCredentials | None:
    context, login = kafka.context(), kafka.login()
    if login is None:
        return None if context is None else faust.SSLCredentials(context=context)
    return faust.SASLCredentials(
        username=login[0],
        password=login[1],
        ssl_context=context,
        mechanism=kafka.kafka_sasl_mechanism,
    )


async def run_worker(settings: WorkerSettings, metrics: WorkerMetrics | None = None) -> int:
    """Run until SIGTERM, SIGINT or a failure; returns the exit code.

    0 after a stop that was asked for, 3 where state and log or models do not fit, 1 otherwise.
    """
    logging.getLogger("faust").setLevel(logging.ERROR)
    metrics = metrics or WorkerMetrics()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    kafka, redis = from_environment()
    for use, path in (*kafka.certificates(), *redis.certificates()):
        metrics.dependencies.certificate(use, expires(path))
    retry = Retry(settings.retry_first_s, settings.retry_most_s, settings.give_up_s, metrics.retry)
    store = MeasuredHistoryStore(
        settings.redis_url,
        metrics.dependencies,
        namespace=settings.namespace,
        timeout_s=settings.redis_timeout_s,
        recent_scores=settings.recent_scores,
        options=redis.options(settings.redis_url),
    )
    producer = MeasuredProducer(_producer(settings, kafka), metrics.dependencies)
    tail = LogTail(
        settings.bootstrap,
        timeout_s=settings.publish_timeout_s,
        committed_only=settings.transactions,
        options=kafka.options(),
    )
    admin = TopicsAdmin(settings.bootstrap, options=kafka.options())
    try:
        engine = load_engine(settings.features, settings.entities, settings.attributes)
        engine.warm_up()
        lifetime.warm_up()
        models = ModelsInUse(open_registry(settings.models, settings.mlflow_uri), engine)
        keys = master_keys(
            settings.data_keys.get_secret_value(), settings.security_dir, measure=metrics.dependencies.call
        )
        seal = ContactVault(keys, settings.namespace).seal if keys else None
        if settings.metrics_port:
            metrics.serve(settings.metrics_host, settings.metrics_port)
        partitions = await _wait_for_dependencies(settings, retry, stop, store, producer, tail, admin)
        metrics.use(models.current, partitions)
        if models.refused is not None:
            metrics.models_refused(True)
            _log.error("models refused, the rest goes on", error=str(models.refused))
        delivery = Delivery(
            store,
            producer,
            metrics,
            retry,
            Placement(partitions, partition_for),
            lambda: to_rfc3339(datetime.now(UTC)),
            _crash_at(settings.crash_point),
            score_span("tidegate-worker") if settings.tracing else lambda headers: headers,
        )
        check_log = _log_check(store, admin, settings.entities)

        watch = ModelWatch(models, metrics, settings.models_watch_s)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, watch.look_now)

        async def vitals(worker: Worker) -> None:
            looks = Vitals(worker, metrics, lambda: _show_redis(store, metrics))
            await asyncio.gather(looks.run(), watch.run())

        return await _run(settings, delivery, models, producer, tail, check_log, vitals, stop, seal, kafka)
    except Interrupted:
        return 0
    except TidegateError as error:
        _log.error("worker refused to start", error=str(error), kind=type(error).__name__)
        return 1 if isinstance(error, DependencyError) else 3
    finally:
        await _close(tail.stop(), producer.stop(), store.close())


def _producer(settings: WorkerSettings, kafka: KafkaAccess) -> BatchProducer:
    # Fraud scores last: where an output partition holds one, it holds all that came with it.
    if settings.transactions:
        return TransactionalProducer(
            settings.bootstrap,
            prefix=f"{settings.group}-{settings.namespace}",
            timeout_s=settings.publish_timeout_s,
            last_topic=FRAUD_SCORES.name,
            options=kafka.options(),
        )
    return BatchProducer(
        settings.bootstrap,
        timeout_s=settings.publish_timeout_s,
        last_topic=FRAUD_SCORES.name,
        options=kafka.options(),
    )


async def _wait_for_dependencies(
    settings: WorkerSettings,
    retry: Retry,
    stop: asyncio.Event,
    store: RedisHistoryStore,
    producer: MeasuredProducer,
    tail: LogTail,
    admin: TopicsAdmin,
) -> int:
    """Wait for Redis and Kafka and check that they fit; returns the number of partitions."""
    await retry.until_done("redis", store.ping, stop)
    if settings.create_topics:
        await retry.until_done("kafka", lambda: admin.create(settings.partitions), stop)
    partitions = await retry.until_done("kafka", admin.source_partitions, stop)
    cluster = await retry.until_done("kafka", admin.cluster_id, stop)
    await retry.until_done("kafka", lambda: _claim_group(settings, store, admin), stop)
    await retry.until_done("redis", lambda: store.claim_entities(_counted(settings.entities)), stop)
    await retry.until_done("redis", lambda: store.claim_topology(partitions, cluster), stop)
    await retry.until_done("kafka", producer.start, stop)
    await retry.until_done("kafka", tail.start, stop)
    _log.info("connected", kafka=settings.bootstrap, partitions=partitions)
    return partitions


async def _run(
    settings: WorkerSettings,
    delivery: Delivery,
    models: ModelsInUse,
    producer: MeasuredProducer,
    tail: LogTail,
    check_log: Callable[[], Awaitable[None]],
    vitals: Callable[[Worker], Awaitable[None]],
    stop: asyncio.Event,
    seal: Seal | None,
    kafka: KafkaAccess,
) -> int:
    app = create_faust_app(settings, kafka)

    async def published_upto(partition: int, stored: int) -> tuple[int, bool]:
        # First: it ends what the owner before left open, which decides whether that counts.
        await producer.take(partition)
        return await tail.scored_upto(FRAUD_SCORES.name, partition, TRANSACTIONS.name, stored)

    worker = Worker(
        delivery,
        _FaustLog(app, tail, settings.publish_timeout_s),
        models,
        topics=[topic.name for topic in INPUTS],
        cached_records=settings.cached_records,
        silent_days=settings.silent_days,
        forget_days=settings.forget_days,
        score_features=settings.score_features,
        check_log=check_log,
        published_upto=published_upto,
        chunk_records=settings.chunk_records,
        entities=models.current.engine.entities,
        seal=seal,
    )
    app.positions = worker
    app.fetch_wait_ms = settings.fetch_wait_ms
    add_agents(app, lambda: worker)
    # The consumer has a thread of its own; at Python's 5 ms each wakes the other up late on busy cores.
    sys.setswitchinterval(0.001)
    collect_rarely()
    # A worker that was paused hears within a heartbeat that it is not in the group any more.
    liveness = Liveness(
        worker, lost_s=settings.session_timeout_s, still_s=6 * settings.session_timeout_s, fail=worker.fail
    )
    tasks = [
        asyncio.ensure_future(_start(app, worker, models.current)),
        asyncio.ensure_future(liveness.run(settings.session_timeout_s / 4)),
        asyncio.ensure_future(vitals(worker)),
    ]
    ended = [
        asyncio.ensure_future(stop.wait()),
        asyncio.ensure_future(app.wait_until_stopped()),
        asyncio.ensure_future(app._crashed.wait()),
    ]
    await asyncio.wait([*ended, worker.failed], return_when=asyncio.FIRST_COMPLETED)
    if app.crashed:
        worker.fail(app.crash_reason)
    deadline = asyncio.get_running_loop().time() + settings.drain_s
    for task in (*tasks, *ended):
        task.cancel()
    drained = await worker.drain(settings.drain_s)
    _log.info("worker stopping", drained=drained)
    await worker.lanes.close()
    try:
        async with asyncio.timeout_at(max(deadline, asyncio.get_running_loop().time() + _LEAST_STOP_S)):
            await app.stop()
    except TimeoutError:
        _log.warning("stopped without waiting for Faust")
    if worker.failed.done():
        error = worker.failed.result()
        unforeseen = None if isinstance(error, TidegateError) else error
        _log.error(
            "worker stopped by a failure", error=str(error), kind=type(error).__name__, exc_info=unforeseen
        )
        return 3 if isinstance(error, TidegateError) and not isinstance(error, DependencyError) else 1
    return 0 if stop.is_set() else 1


async def _start(app: faust.App, worker: Worker, models: Models) -> None:
    try:
        await app.start()
    except Exception as error:
        worker.fail(error)
        return
    _log.info("worker ready", fraud=models.fraud.card.version, churn=models.churn.card.version)


async def _close(*parts: Awaitable[None]) -> None:
    """Let go of connections; a server that does not answer is not waited for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LEAST_STOP_S):
            await asyncio.gather(*parts, return_exceptions=True)


async def _show_redis(store: RedisHistoryStore, metrics: WorkerMetrics) -> None:
    try:
        metrics.redis.show(await store.info())
    except DependencyError:
        metrics.redis.show(None)
        raise


async def _claim_group(settings: WorkerSettings, store: RedisHistoryStore, admin: TopicsAdmin) -> None:
    """Say whose state this is: two groups would take each other's leases for ever."""
    holder = await store.group()
    if holder == settings.group:
        return
    if holder and (members := await admin.group_members(holder)):
        raise ConfigError(
            f"the state of namespace {settings.namespace!r} is kept by group {holder!r}, of which "
            f"{members} workers are running: set TIDEGATE_GROUP={holder}, or stop them and wait until Kafka "
            "has dropped those that crashed; a group of its own needs a TIDEGATE_NAMESPACE of its own"
        )
    await store.set_group(settings.group)


def _counted(entities: str) -> list[str]:
    return sorted({feature.entity for feature in entity_features(entities)})


def _log_check(store: RedisHistoryStore, admin: TopicsAdmin, entities: str) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        # Each time: state that was removed meanwhile is begun anew by whoever takes a lease first.
        await store.claim_entities(_counted(entities))
        await store.claim_topology(await admin.source_partitions(), await admin.cluster_id())

    return check


def _crash_at(point: str) -> Callable[[str], None]:
    def crash(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash
