"""Says what was lost, doubled or contradicted, from the topics and Redis alone.

Nothing here is the product's: plain clients, a decoder of the stored format written from its
description, and sums recomputed from the log. It knows the format of histories (48 bytes, then 56 for each
record), not how they came about.
"""

import asyncio
import json
import marshal
import math
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import zstandard
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis import Redis
from xxhash import xxh3_64_intdigest, xxh3_128_digest, xxh32_intdigest

from infra.score_packing import WORDS

INPUTS = ("transactions", "labels", "customers")
OUTPUTS = ("scores.fraud", "scores.churn", "alerts", "transactions.dlq")
HEADER = struct.Struct("<HBBIqqqqii")
RECORD = struct.Struct("<qQqIIIffHH8B")
_TIME = struct.Struct("<q")
_CREDITS = {"deposit", "refund", "salary"}
_LABELS = {"fraud": 1, "genuine": 2, "account_closed": 3}
_PRESENT = {None: 0, False: 1, True: 2}
# The words that stored scores are compressed against are a part of the format, not of the program.
_SCORES = zstandard.ZstdDecompressor(
    dict_data=zstandard.ZstdCompressionDict(WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
)
_SHOWN = 5
_LARGEST = 64 * 1024
# Histories keep at least this much before a customer's newest transaction.
_KEPT_MS = 120 * 86_400_000

Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Spool:
    """Records of a partition in a file, for logs that do not fit into memory; read as often as wanted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def extend(self, records: Iterable[Record]) -> None:
        for r in records:
            marshal.dump((r.offset, r.timestamp, r.key, r.value), self._file)

    def __iter__(self) -> Iterator[Record]:
        self._file.flush()
        with self._path.open("rb") as file:
            end = self._path.stat().st_size
            while file.tell() < end:
                yield Record(*marshal.load(file))  # noqa: S302


Log = Mapping[tuple[str, int], Iterable[Record]]


@dataclass
class Verdict:
    """What was found.

    Attributes:
        events: Transactions in the log.
        refused: Of them, those that must become dead letters.
        lost: Without an output, or missing in the state.
        doubled: More often in the state than in the log.
        conflicting: Inputs with two different outputs, or with one that is not theirs.
        repeated: Outputs that are there again, equal but for the time of scoring.
        repeated_others: Churn scores and alerts that are there again.
        wrong_states: Customers whose stored records are not those of the log.
        moved: See `check`.
        conflicting_churn: Churn scores of one customer and time that differ.
        examples: A few places of each kind, for whoever looks into it.
    """

    events: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    conflicting: int = 0
    repeated: int = 0
    repeated_others: int = 0
    wrong_states: int = 0
    conflicting_churn: int = 0
    moved: bool = False
    examples: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.conflicting or self.wrong_states)

    def note(self, kind: str, what: Any) -> None:
        if len(self.examples[kind]) < _SHOWN:
            self.examples[kind].append(what)


async def read_log(
    bootstrap: str,
    topics: Iterable[str] = (*INPUTS, *OUTPUTS),
    *,
    committed_only: bool = False,
    folder: Path | None = None,
    timeout_s: float = 300,
) -> Log:
    """Everything that is on these topics now; in files of this folder where one is given."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics(list(topics))
    finally:
        await admin.close()
    tps = [TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if committed_only else "read_uncommitted",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=4_000_000,
    )
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        found: dict[tuple[str, int], list[Record] | Spool] = {
            (tp.topic, tp.partition): Spool(folder / f"{tp.topic}-{tp.partition}") if folder else []
            for tp in tps
        }
        async with asyncio.timeout(timeout_s):
            while True:
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[tp.topic, tp.partition].extend(
                        Record(r.offset, r.timestamp, r.key, r.value) for r in records
                    )
                left = []
                for tp in tps:
                    known_end = consumer.last_stable_offset(tp) if committed_only else consumer.highwater(tp)
                    if await consumer.position(tp) < max(ends[tp], known_end or 0):
                        left.append(tp)
                if not left:
                    return found
    finally:
        await consumer.stop()


def check(
    log: Log, redis: Redis, namespace: str = "tg", *, moved: bool = False, partition: int | None = None
) -> Verdict:
    """Compare outputs and state with the log.

    Args:
        log: All topics.
        redis: Where the state is.
        namespace: First part of every key.
        moved: The number of partitions was changed: events of customers who belong elsewhere now are there
            twice, where they were and where they were passed on to, and may have been scored in both.
        partition: Look at this one alone, for logs that are large: what is expected is held in memory.
    """
    if partition is not None:
        log = {key: records for key, records in log.items() if key[1] == partition}
    verdict = Verdict()
    verdict.moved = moved
    expected = _Expected()
    for (topic, number), records in sorted(log.items()):
        if topic == "transactions":
            for record in records:
                expected.transaction(number, record)
    for (topic, number), records in sorted(log.items()):
        if topic == "labels":
            for record in records:
                expected.label(number, record)
    verdict.events = len(expected.kinds)
    verdict.refused = sum(kind != "score" for kind in expected.kinds.values())
    _outputs(log, expected, verdict)
    _churn(log, verdict)
    _alerts(log, verdict)
    _state(redis, f"{{{namespace}:{'*' if partition is None else partition}}}", expected, verdict)
    return verdict


class _Expected:
    """What must come out of a log, by its own reading of the messages."""

    def __init__(self) -> None:
        self.kinds: dict[Place, str] = {}
        self.scored: dict[Place, tuple[str, str]] = {}
        self.histories: dict[str, Counter[bytes]] = defaultdict(Counter)
        self.totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        self.partitions: dict[str, int] = {}
        self.newest: dict[str, str] = {}
        self.newest_ms: dict[str, int] = {}
        self._seen: set[tuple[str, str]] = set()

    def transaction(self, partition: int, record: Record) -> None:
        place = ("transactions", partition, record.offset)
        message = _accepted(record.value)
        if message is None:
            self.kinds[place] = "refused"
            return
        customer, identity = both = message["customer_id"], message["transaction_id"]
        if both in self._seen:
            self.kinds[place] = "duplicate"
            return
        self._seen.add(both)
        self.kinds[place] = "score"
        self.scored[place] = both
        self.newest_ms[customer] = max(self.newest_ms.get(customer, 0), _ms(message["event_time"]))
        self.partitions[customer] = partition
        self.newest[customer] = identity
        minor = int(Decimal(str(message["amount"])).scaleb(2))
        credit = _is_credit(message)
        mine = self.totals[customer]
        mine[0] += 1
        mine[1 + credit] += minor
        self.histories[customer][_transaction(message, minor, credit)] += 1

    def label(self, partition: int, record: Record) -> None:
        message = json.loads(record.value or b"{}")
        customer, identity = message["customer_id"], message.get("transaction_id")
        if identity is not None and (customer, identity) not in self._seen:
            return
        packed = RECORD.pack(
            _ms(message["label_time"]),
            xxh3_64_intdigest(identity.encode()) if identity else 0,
            *(0, 0, 0, 0, math.nan, math.nan, 0, 0),
            *(0, 0, 0, 0, 0, 1, _LABELS[message["label"]], 0),
        )
        # The same finding twice is one record.
        self.histories[customer][_comparable(packed)] = 1

    def required(self, customer: str) -> Counter[bytes]:
        """Records that a history must hold; older ones of the log it may hold."""
        oldest = self.newest_ms.get(customer, 0) - _KEPT_MS
        return Counter(
            {r: n for r, n in self.histories[customer].items() if _TIME.unpack_from(r)[0] >= oldest}
        )


def _outputs(log: Log, expected: _Expected, verdict: Verdict) -> None:
    found: dict[Place, list[bytes]] = defaultdict(list)
    kinds: dict[Place, set[str]] = defaultdict(set)
    for (topic, partition), records in log.items():
        if topic not in ("scores.fraud", "transactions.dlq"):
            continue
        for record in records:
            message = orjson.loads(record.value or b"{}")
            source = message["source"]
            place = (source["topic"], source["partition"], source["offset"])
            message.pop("scored_at", None)
            said = orjson.dumps(message, option=orjson.OPT_SORT_KEYS)
            found[place].append(xxh3_128_digest(topic.encode() + said))
            kinds[place].add(topic)
            if topic == "scores.fraud":
                both = (message["customer_id"], message["transaction_id"])
                if both != expected.scored.get(place, both):
                    verdict.conflicting += 1
                    verdict.note("another one's score", (place, both))
                if partition != source["partition"]:
                    verdict.conflicting += 1
                    verdict.note("in another partition than its source", place)
    for place, kind in expected.kinds.items():
        outputs = found.get(place, [])
        verdict.repeated += len(outputs) - len(set(outputs))
        wanted = "scores.fraud" if kind == "score" else "transactions.dlq"
        if verdict.moved and kind == "duplicate":
            continue
        if wanted not in kinds.get(place, ()):
            verdict.lost += 1
            verdict.note(f"no {kind}", (place, kinds.get(place)))
        if len(set(outputs)) > 1:
            verdict.conflicting += 1
            verdict.note("two outputs", (place, kinds[place]))
    for place in found.keys() - expected.kinds.keys():
        verdict.conflicting += 1
        verdict.note("output of no transaction", place)


def _churn(log: Log, verdict: Verdict) -> None:
    seen: dict[tuple[str, str], str] = {}
    for (topic, _), records in log.items():
        if topic != "scores.churn":
            continue
        for record in records:
            message = json.loads(record.value or b"{}")
            message.pop("scored_at")
            said = json.dumps(message, sort_keys=True)
            verdict.repeated_others += (message["customer_id"], message["as_of"]) in seen
            if seen.setdefault((message["customer_id"], message["as_of"]), said) != said:
                verdict.conflicting_churn += 1
                verdict.note("churn", (seen[message["customer_id"], message["as_of"]], said))


def _alerts(log: Log, verdict: Verdict) -> None:
    ids = Counter(
        json.loads(record.value or b"{}")["alert_id"]
        for (topic, _), records in log.items()
        if topic == "alerts"
        for record in records
    )
    verdict.repeated_others += ids.total() - len(ids)


def _unpacked(block: bytes) -> bytes:
    """Records of a packed block, by the description of the format and not by the codec."""
    (n,) = struct.unpack_from("<I", block)
    plain = zstandard.ZstdDecompressor().decompress(block[4 + 8 * n :])
    (kinds,) = struct.unpack_from("<I", plain)
    at = 4 + 16 * n + 32 * kinds

    def number(start: int, size: int, i: int) -> int:
        return int.from_bytes(bytes(plain[start + byte * n + i] for byte in range(size)), "little")

    records, time = b"", 0
    for i in range(n):
        time = (time + number(4, 8, i)) % 2**64
        rest = 4 + 16 * n + 32 * number(at, 4, i)
        records += time.to_bytes(8, "little") + block[4 + 8 * i : 12 + 8 * i]
        records += number(4 + 8 * n, 8, i).to_bytes(8, "little") + plain[rest : rest + 32]
    return records


def _state(redis: Redis, tags: str, expected: _Expected, verdict: Verdict) -> None:
    stored = set()
    for key in redis.scan_iter(match=f"{tags}:h:*", count=1000):
        tag, customer = key.decode().split(":h:", 1)
        stored.add(customer)
        raw = redis.get(key)
        magic, version, width, packed_bytes, _, count, debit, credit, _, _ = HEADER.unpack_from(raw)
        assert (magic, version, width) == (0x4754, 3, RECORD.size), f"{key!r}: a format not known here"
        wanted = expected.totals.get(customer, [0, 0, 0])
        verdict.lost += max(0, wanted[0] - count)
        verdict.doubled += max(0, count - wanted[0])
        body = raw[HEADER.size :]
        if packed_bytes:
            block = redis.get(key.replace(b":h:", b":b:", 1))
            assert len(block) == packed_bytes, f"{key!r}: another block than its header says"
            body += _unpacked(block)
        assert len(body) % RECORD.size == 0, f"{key!r}: cut off"
        records = Counter(_comparable(body[i : i + RECORD.size]) for i in range(0, len(body), RECORD.size))
        missing, stray = expected.required(customer) - records, records - expected.histories[customer]
        right = [count, debit, credit] == wanted and not missing and not stray
        here = int(tag.rsplit(":", 1)[1].rstrip("}"))
        if not right or not (verdict.moved or here == expected.partitions.get(customer)):
            verdict.wrong_states += 1
            verdict.note(
                "state",
                (
                    *(customer, [count, debit, credit], wanted, "missing, too many:"),
                    *(missing.total(), stray.total()),
                ),
            )
        newest = redis.lindex(f"{tag}:s:{customer}", -1)
        if customer in expected.newest and not verdict.moved:
            shown = json.loads(_SCORES.decompress(newest))["transaction_id"] if newest else None
            if shown != expected.newest[customer]:
                verdict.wrong_states += 1
                verdict.note("newest score", (customer, shown, expected.newest[customer]))
    for customer in expected.totals.keys() - stored:
        verdict.lost += expected.totals[customer][0]
        verdict.note("no state", customer)


def _accepted(value: bytes | None) -> dict[str, Any] | None:
    """A message that must be scored, or `None` for one that must be refused."""
    try:
        if len(value or b"") > _LARGEST:
            return None
        message = json.loads(value or b"")
        if not {"transaction_id", "customer_id", "event_time", "amount", "currency"} <= message.keys():
            return None
        _ms(message["event_time"])
        accepted: dict[str, Any] | None = message if Decimal(str(message["amount"])) > 0 else None
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    return accepted


def _is_credit(message: Mapping[str, Any]) -> int:
    direction = message.get("direction")
    if direction is not None:
        return int(direction == "credit")
    return int(message.get("transaction_type") in _CREDITS)


def _transaction(message: Mapping[str, Any], minor: int, credit: int) -> bytes:
    def name(field_name: str) -> int:
        value = message.get(field_name)
        return (xxh32_intdigest(value.encode()) or 1) if value else 0

    def letters(value: str | None) -> int:
        code = 0
        for letter in value or "":
            code = code * 27 + ord(letter) - ord("A") + 1
        return code

    here = message.get("latitude"), message.get("longitude")
    latitude, longitude = (math.nan, math.nan) if None in here else here
    packed = RECORD.pack(
        *(_ms(message["event_time"]), xxh3_64_intdigest(message["transaction_id"].encode()), minor),
        *(name("merchant_id"), name("device_id"), name("counterparty_id")),
        *(latitude, longitude, letters(message.get("merchant_country")), letters(message["currency"])),
        *(0, 0, 0, credit, _PRESENT[message.get("card_present")], 0, 0, 0),
    )
    return _comparable(packed)


def _comparable(packed: bytes) -> bytes:
    # Category, type and channel are codes of the product's own tables: left out.
    return packed[:48] + b"\0\0\0" + packed[51:]


def _ms(moment: str | int) -> int:
    if isinstance(moment, int):
        return moment
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
