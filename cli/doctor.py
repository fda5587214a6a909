"""`tidegate doctor`."""

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from api.settings import ApiSettings
from cli.console import out, print_json
from cli.options import BOOTSTRAP, MODELS, NAMESPACE, REDIS_URL, Bootstrap, Models, Namespace, RedisUrl
from infra.access import from_environment
from infra.checks import Status, worst
from infra.doctor import Deployment, examine
from infra.given import settings_of
from sink.settings import SinkSettings

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.ERROR: "red", Status.SKIPPED: "dim"}


def doctor(
    bootstrap: Bootstrap = BOOTSTRAP,
    redis_url: RedisUrl = REDIS_URL,
    namespace: Namespace = NAMESPACE,
    models: Models = MODELS,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the worker has."),
    ] = None,
    entities: Annotated[
        str, typer.Option(envvar="TIDEGATE_ENTITIES", help="Entities with features, as the worker has.")
    ] = "",
    attributes: Annotated[
        str,
        typer.Option(envvar="TIDEGATE_ATTRIBUTES", help="Attributes that models read, as the worker has."),
    ] = "",
    group: Annotated[str, typer.Option(envvar="TIDEGATE_GROUP", help="Kafka consumer group.")] = "tidegate",
    timeout: Annotated[float, typer.Option(min=0.5, help="Seconds for one server.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check a deployment and say what to change; nothing is changed.

    Looks at connections, versions, topics and their settings, Redis's persistence and eviction, clocks,
    certificates, secrets, models, whether histories and log fit, and event log, index and log
    (TIDEGATE_DATABASE_URL). Exits 1 where something is wrong, 0 otherwise, also with warnings.
    """
    # What does not answer is a finding, said once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    kafka, redis = from_environment()
    kept = settings_of(SinkSettings)
    api = settings_of(ApiSettings)
    findings = asyncio.run(
        examine(
            Deployment(
                bootstrap,
                redis_url,
                namespace,
                models,
                kafka,
                redis,
                timeout,
                features,
                entities,
                attributes,
                group,
                kept.database_url,
                kept.events,
                api.certificates(),
                api.tls_key,
            )
        )
    )
    verdict = worst(findings)
    if json:
        print_json({"status": verdict, "findings": [asdict(finding) for finding in findings]})
    else:
        table = Table("check", "", "found", "what to do")
        for f in findings:
            colour = _COLOURS[f.status]
            table.add_row(f.check, f"[{colour}]{f.status}[/]", escape(f.detail), escape(f.advice))
        out.print(table)
    raise typer.Exit(1 if verdict is Status.ERROR else 0)
