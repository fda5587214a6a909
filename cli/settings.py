"""`tidegate settings`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from api.settings import ApiSettings
from cli.console import out, print_json
from infra.access import KafkaAccess, RedisAccess
from infra.kms import KmsAccess
from infra.settings_table import Setting, markdown, settings_of
from sink.settings import SinkSettings
from stream_app.settings import WorkerSettings


def all_settings() -> list[Setting]:
    """Every setting of worker, API and their clients."""
    return settings_of(
        [
            ("worker", WorkerSettings),
            ("sink", SinkSettings),
            ("API", ApiSettings),
            ("worker, API, sink, topics, publish, doctor", KafkaAccess),
            ("worker, API, state, doctor", RedisAccess),
            ("worker, API, keys", KmsAccess),
        ]
    )


def settings(
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/settings.md.")] = False,
) -> None:
    """Print every setting with its variable and default."""
    found = all_settings()
    if as_markdown:
        print(markdown(found), end="")
    elif json:
        print_json([asdict(setting) for setting in found])
    else:
        table = Table("variable", "default", "read by", "meaning")
        for setting in found:
            table.add_row(setting.variable, setting.default, setting.used_by, setting.meaning)
        out.print(table)
