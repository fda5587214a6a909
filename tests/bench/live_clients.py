"""Many WebSocket clients on one API process while scores are published: `python tests/bench/live_clients.py`.

Every client must see each matching score once, and in order for each customer. Starts its own broker.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import websockets
from aiokafka import AIOKafkaProducer

from harness.bench import environment
from harness.processes import ApiProcess
from infra.embedded import EmbeddedStack
from infra.topics_admin import TopicsAdmin

PARTITIONS = 4
CUSTOMERS = 10_000


def resident_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) // 1024


class Client:
    """One client and what it must see."""

    def __init__(self, number, draw):
        if number % 50 == 0:
            self.query, self.customers = "?decision=review&decision=block", None
        else:
            self.customers = {f"c{draw.randrange(CUSTOMERS):07d}" for _ in range(20)}
            self.query = "?" + "&".join(f"customer_id={c}" for c in sorted(self.customers))
        self.seen = []
        self.delay_ms = []
        self.ready = asyncio.Event()
        self.closed = None

    def wants(self, score):
        return (
            score["decision"] != "allow" if self.customers is None else score["customer_id"] in self.customers
        )

    async def run(self, address):
        while not self.ready.is_set():
            try:
                async with websockets.connect(
                    f"ws://{address}/stream/scores{self.query}", compression=None, open_timeout=60
                ) as socket:
                    async for text in socket:
                        message = json.loads(text)
                        now = time.time()
                        self.ready.set()
                        for score in message.get("scores", ()):
                            self.seen.append((score["customer_id"], score["number"]))
                            self.delay_ms.append((now - score["sent"]) * 1000)
            except websockets.ConnectionClosed as closed:
                # Before it was ready: Kafka was not connected yet.
                if self.ready.is_set():
                    self.closed = str(closed)


async def publish(bootstrap, rate, seconds, draw):
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await producer.start()
    sent, started = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if number % 20 == 0 and (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        customer = f"c{draw.randrange(CUSTOMERS):07d}"
        decision = draw.choices(("allow", "review", "block"), (0.95, 0.03, 0.02))[0]
        score = {"customer_id": customer, "decision": decision, "number": number, "sent": time.time()}
        sent.append(score)
        await producer.send("scores.fraud", json.dumps(score).encode(), key=customer.encode())
    await producer.flush()
    took = time.perf_counter() - started
    await producer.stop()
    return sent, took


def by_customer(pairs):
    found = defaultdict(list)
    for customer, number in pairs:
        found[customer].append(number)
    return found


async def run(options):
    draw = random.Random(5)  # noqa: S311
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-live-") as folder,
        EmbeddedStack(folder, durable=False) as stack,
    ):
        await TopicsAdmin(stack.bootstrap).create(PARTITIONS)
        settings = {
            "bootstrap": stack.bootstrap,
            "redis_url": stack.redis_url,
            "models": options.models.resolve(),
        }
        settings |= {"database_url": f"sqlite:///{folder}/index.db", "events": f"{folder}/events"}
        api = ApiProcess(folder, settings)
        await asyncio.to_thread(api.start, 180)
        clients = [Client(n, draw) for n in range(options.clients)]
        tasks = [asyncio.create_task(client.run(api.address)) for client in clients]
        await asyncio.gather(*(client.ready.wait() for client in clients))
        memory = [resident_mb(api.pid)]

        async def watch():
            while True:
                await asyncio.sleep(options.seconds / 10)
                memory.append(resident_mb(api.pid))

        watching = asyncio.create_task(watch())
        sent, took = await publish(stack.bootstrap, options.rate, options.seconds, draw)
        # In another thread: clients that do not answer pings meanwhile would be closed.
        wanted = await asyncio.to_thread(
            lambda: [[(s["customer_id"], s["number"]) for s in sent if c.wants(s)] for c in clients]
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and any(
            c.closed is None and len(c.seen) < len(w) for c, w in zip(clients, wanted, strict=True)
        ):
            await asyncio.sleep(0.1)
        watching.cancel()
        exact = sum(by_customer(c.seen) == by_customer(w) for c, w in zip(clients, wanted, strict=True))
        delays = [d for c in clients for d in c.delay_ms]
        result = {
            "clients": options.clients,
            "scores": len(sent),
            "scores_per_second": round(len(sent) / took),
            "deliveries": sum(len(c.seen) for c in clients),
            "clients_exact": exact,
            "clients_closed": dict(Counter(c.closed for c in clients if c.closed)),
            "delay_ms": {f"p{p}": round(float(np.percentile(delays, p)), 1) for p in (50, 99)},
            "memory_mb": memory,
            "environment": environment(),
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        api.stop()
    print(json.dumps(result))
    return 0 if exact == options.clients else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--models", type=Path, default=Path(".tidegate/models"))
    raise SystemExit(asyncio.run(run(parser.parse_args())))
