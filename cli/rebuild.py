"""`tidegate rebuild`."""

import asyncio
from typing import Annotated, Any

import typer

from cli.console import err, print_json
from cli.options import BOOTSTRAP, NAMESPACE, REDIS_URL, Bootstrap, Namespace, RedisUrl
from infra.access import from_environment
from infra.history_reset import HistoryReset
from infra.log_tail import LogTail
from infra.topics_admin import TopicsAdmin
from schemas.errors import ConfigError
from schemas.topics import TOPICS

_INPUTS = [topic.name for topic in TOPICS if topic.direction == "in"]


def rebuild(
    bootstrap: Bootstrap = BOOTSTRAP,
    redis_url: RedisUrl = REDIS_URL,
    namespace: Namespace = NAMESPACE,
    group: Annotated[str, typer.Option(envvar="TIDEGATE_GROUP", help="Kafka consumer group.")] = "tidegate",
    yes: Annotated[bool, typer.Option("--yes", help="Really remove the stored histories.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Although Kafka still lists workers. Those that run are fenced off, and build it again.",
        ),
    ] = False,
) -> None:
    """Remove all histories; workers build them again from the start of the log.

    For a Redis that was emptied, lost writes that no worker noticed, or holds another format; and for a
    topic with another number of partitions. Stop the workers before and start them afterwards. What the
    output topics already hold is not published again. Lookups of customers are refused until the
    workers have come to its end.
    """
    if not yes:
        raise ConfigError(
            f"this removes every history of namespace {namespace!r} from Redis; stop all workers, then run "
            "it again with --yes"
        )
    print_json(asyncio.run(_rebuild(bootstrap, redis_url, namespace, "" if force else group)))


async def _rebuild(bootstrap: str, redis_url: str, namespace: str, group: str) -> dict[str, Any]:
    kafka, redis = from_environment()
    admin = TopicsAdmin(bootstrap, options=kafka.options())
    partitions = await admin.source_partitions()
    cluster_id = await admin.cluster_id()
    reset = HistoryReset(redis_url, namespace=namespace, options=redis.options(redis_url))
    try:
        for of_state in sorted({group, await reset.group()} - {""}) if group else ():
            await _check_stopped(admin, of_state)
        tail = LogTail(bootstrap, options=kafka.options())
        await tail.start()
        try:
            bounds = await tail.bounds([(topic, p) for topic in _INPUTS for p in range(partitions)])
        finally:
            await tail.stop()
        removed = await reset.run(partitions, cluster_id, {tp: start for tp, (start, _) in bounds.items()})
    finally:
        await reset.close()
    cut = sorted(f"{topic}[{p}]" for (topic, p), (start, _) in bounds.items() if start > 0)
    if cut:
        err.print(f"the log no longer has the beginning of {', '.join(cut)}: totals count from what is left")
    behind = sum(end - start for start, end in bounds.values())
    err.print(f"start the workers: {behind} messages are to be read again")
    return {"removed_keys": removed, "partitions": partitions, "messages": behind}


async def _check_stopped(admin: TopicsAdmin, group: str) -> None:
    if members := await admin.group_members(group):
        raise ConfigError(
            f"{members} workers of group {group!r} are running: stop them, wait until Kafka has dropped "
            "those that crashed, and run it again. The embedded broker never drops them: use --force"
        )
