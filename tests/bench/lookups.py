"""Processor time of lookups without network: `python tests/bench/lookups.py features,transactions 1000`.

Asks the application in this process. `TIDEGATE_*` name the Redis, database, event log and models of a
deployment that is there, with an index in SQLite.
"""

import argparse
import asyncio
import sqlite3
import time

from api.main import build
from api.settings import ApiSettings

AT_ONCE = 16


def scope(path, query):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": [(b"host", b"x")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


async def ask(app, path, query=b""):
    status = 0

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        nonlocal status
        status = message.get("status", status)

    await app(scope(path, query), receive, send)
    return status


async def run(options):
    settings = ApiSettings(bootstrap="")
    index = sqlite3.connect(settings.database_url.removeprefix("sqlite:///"))
    ids = [row[0] for row in index.execute("select customer_id from customers where transactions > 0")]
    app = build(settings)

    def path(name, number):
        customer = ids[number * 7919 % len(ids)]
        return {
            "live": ("/live",),
            "customer": (f"/customers/{customer}",),
            "list": ("/customers", b"limit=50&sort=last_event_ms&order=desc"),
            "figures": ("/analytics/customers", b"by=churn_band"),
        }.get(name, (f"/customers/{customer}/{name}",))

    async with app.router.lifespan_context(app):
        for name in options.lookups.split(","):
            numbers = iter(range(options.requests))

            async def some(name=name, numbers=numbers):
                return {await ask(app, *path(name, number)) for number in numbers}

            await asyncio.gather(*(ask(app, *path(name, n)) for n in range(50)))
            before = time.process_time()
            statuses = set().union(*await asyncio.gather(*(some() for _ in range(AT_ONCE))))
            cost_ms = 1000 * (time.process_time() - before) / options.requests
            print(f"{name}: {cost_ms:.2f} ms of processor time, statuses {sorted(statuses)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lookups", help="live, customer, list, figures, features, scores, transactions")
    parser.add_argument("requests", type=int)
    asyncio.run(run(parser.parse_args()))
