"""`tidegate topics`."""

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from cli.console import out, print_json
from infra.access import from_environment
from infra.topics_admin import TopicsAdmin
from schemas.topics import TOPICS

app = typer.Typer(no_args_is_help=True, help="Topics on the broker.")
Bootstrap = Annotated[
    str, typer.Option(envvar="TIDEGATE_BOOTSTRAP", help="Kafka brokers, HOST:PORT[,HOST:PORT].")
]


@app.command()
def create(
    bootstrap: Bootstrap = "127.0.0.1:9092",
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of topics that are made now.")] = 4,
    replication: Annotated[int, typer.Option(min=1, help="Copies on a cluster.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Create the topics that are missing, as declared."""
    kafka, _ = from_environment()
    states = asyncio.run(TopicsAdmin(bootstrap, options=kafka.options()).create(partitions, replication))
    rows = [{"topic": s.topic.name, "partitions": s.partitions, "created": s.created} for s in states]
    if json:
        print_json(rows)
        return
    table = Table("topic", "partitions", "")
    for row in rows:
        table.add_row(str(row["topic"]), str(row["partitions"]), "created" if row["created"] else "was there")
    out.print(table)


@app.command(name="list")
def list_topics(json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Show the declared topics."""
    if json:
        print_json(
            [
                {"topic": t.name, "direction": t.direction, "meaning": t.meaning, "config": dict(t.config)}
                for t in TOPICS
            ]
        )
        return
    table = Table("topic", "direction", "meaning", "settings")
    for t in TOPICS:
        table.add_row(t.name, t.direction, t.meaning, ", ".join(f"{k}={v}" for k, v in t.config.items()))
    out.print(table)
