"""`tidegate learn`."""

import asyncio
import logging
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.console import out, print_json
from cli.file_log import engine_of
from cli.models import As
from cli.options import (
    BOOTSTRAP,
    MODELS,
    NAMESPACE,
    REDIS_URL,
    Bootstrap,
    MlflowUri,
    Models,
    Namespace,
    RedisUrl,
)
from features.engine import Engine
from infra.access import from_environment
from infra.history_store import RedisHistoryStore
from infra.label_learner import LabelLearner, Learned, Plan
from infra.learning_metrics import LearningMetrics
from infra.logs import configure
from infra.model_store import open_registry
from models.online import EVERY
from models.registry import ModelRegistry


def learn(
    bootstrap: Bootstrap = BOOTSTRAP,
    redis_url: RedisUrl = REDIS_URL,
    namespace: Namespace = NAMESPACE,
    models: Models = MODELS,
    mlflow_uri: MlflowUri = "",
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the worker had."),
    ] = None,
    role: Annotated[As, typer.Option("--as", help="Role of the versions that it makes.")] = As.SHADOW,
    share: Annotated[float, typer.Option(min=0.001, max=0.999, help="Of customers, for a challenger.")] = 0.1,
    labels: Annotated[int, typer.Option(min=1, help="New frauds from which on a version is made.")] = 25,
    seconds: Annotated[float, typer.Option(min=0.0, help="Between two versions at least.")] = 60.0,
    one_in: Annotated[
        int,
        typer.Option(
            min=1, help="One genuine transaction in so many is learned from; more for a large bank."
        ),
    ] = EVERY,
    once: Annotated[bool, typer.Option(help="Learn what the topics hold now, and end.")] = False,
    metrics_port: Annotated[int, typer.Option(min=0, help="Prometheus port; 0: none.")] = 0,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics port.")] = "127.0.0.1",
    json: Annotated[bool, typer.Option("--json", help="For machines; with --once.")] = False,
) -> None:
    """Let the fraud model in use learn from the topic of labels.

    Reads scores.fraud and labels from the start of their topics. A fraud is learned from when it is reported,
    and one in five of the transactions that nobody reports when its label delay is over, each with its vector
    as of when it was scored, computed from the histories in Redis. Every so many frauds a version is saved:
    the trees as they were, and what labels have taught beside them, as far as it proved right on labels
    before it learned from them; from some dozens of frauds on trees grown anew, where they prove better.
    Workers and API take it as any other version. Trained anew, or rolled back to another model, it begins
    from that one. Changes nothing but the registry; SIGTERM ends it.
    """
    configure("warning" if once else "info")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    registry = open_registry(models, mlflow_uri)
    engine = engine_of(registry.card("fraud", registry.champion("fraud")), features)
    metrics = LearningMetrics()
    if metrics_port:
        metrics.serve(metrics_host, metrics_port)
    plan = Plan(role.value, share, labels, seconds, one_in)
    learned = asyncio.run(_learn(bootstrap, redis_url, namespace, registry, engine, plan, metrics, once))
    if json:
        print_json(asdict(learned))
    else:
        out.print(_sentence(learned, plan.role), highlight=False, soft_wrap=True)


async def _learn(
    bootstrap: str,
    redis_url: str,
    namespace: str,
    registry: ModelRegistry,
    engine: Engine,
    plan: Plan,
    metrics: LearningMetrics,
    once: bool,
) -> Learned:
    kafka, redis = from_environment()
    store = RedisHistoryStore(redis_url, namespace=namespace, options=redis.options(redis_url))
    learner = LabelLearner(
        bootstrap,
        store,
        registry,
        engine,
        plan,
        metrics,
        partitions=store.partitions,
        options=kafka.options(),
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, learner.stop)
    try:
        return await learner.run(once=once)
    finally:
        await store.close()


def _sentence(learned: Learned, role: str) -> str:
    made = f"{learned.versions[-1]} is {role} now" if learned.versions else "no version was made"
    left_out = [
        f"{count:,} {what}"
        for count, what in (
            (learned.unknown, "labels of transactions that no history holds any more"),
            (learned.unreadable, "messages that are no scores or labels"),
        )
        if count
    ]
    rest = f"; left out: {', '.join(left_out)}" if left_out else ""
    return (
        f"beside fraud {learned.base}: learned from {learned.frauds:,} frauds and {learned.genuine:,} "
        f"genuine transactions; trees grown anew {learned.trees_grown} times, what was learned beside them "
        f"counts {learned.share:.0%}; {learned.waiting:,} wait for their time; {made}{rest}"
    )
