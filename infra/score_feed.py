"""The score topic as the live feed reads it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from infra.consumers import connected
from schemas.errors import DependencyError

_BUSY_WAIT_MS = 50
_IDLE_WAIT_MS = 250


class KafkaScores:
    """Follows all partitions of a topic from its end, and reads older parts of it.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        topic: The topic.
        too_old: Makes the error for a position that the log does not hold.
        timeout_s: Limit of one answer.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        too_old: Callable[[str], Exception],
        *,
        timeout_s: float = 10.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._options = dict(options or {})
        self._bootstrap, self._topic, self._too_old = bootstrap, topic, too_old
        self._timeout_s = timeout_s
        self._consumer: Any = None
        self._next: dict[int, int] = {}

    async def start(self) -> Sequence[int]:
        """Connect; the next offset of each partition: where it was, after an interruption."""
        consumer = self._consumer = await self._connect()
        try:
            async with asyncio.timeout(self._timeout_s):
                partitions = sorted(
                    (await consumer._client.fetch_all_metadata()).partitions_for_topic(self._topic) or ()
                )
                if not partitions:
                    raise DependencyError(
                        f"there is no topic {self._topic} yet: run 'tidegate topics create'"
                    )
                tps = [TopicPartition(self._topic, p) for p in partitions]
                consumer.assign(tps)
                ends = await consumer.end_offsets(tps)
                starts = await consumer.beginning_offsets(tps)
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        for tp in tps:
            known = self._next.get(tp.partition, ends[tp])
            self._next[tp.partition] = max(known, starts[tp])
            consumer.seek(tp, self._next[tp.partition])
        return [self._next[p] for p in partitions]

    async def fetch(self) -> Sequence[tuple[int, int, bytes]]:
        """What has come."""
        try:
            fetched = await self._consumer.getmany(timeout_ms=200, max_records=5000)
        except OffsetOutOfRangeError:
            # A new log under the same name: from its end on.
            self._next.clear()
            raise DependencyError(f"the log of {self._topic} was replaced") from None
        except (KafkaError, OSError) as error:
            raise self._away(error) from error
        found = []
        for tp, records in fetched.items():
            found += [(tp.partition, r.offset, r.value or b"") for r in records]
            self._next[tp.partition] = records[-1].offset + 1
        # How long the broker may wait with the next. Some look again only after a part of that, so less while
        # scores come; each empty answer takes the event loop a millisecond, in which no request is answered.
        self._consumer._fetcher._fetch_max_wait_ms = _BUSY_WAIT_MS if found else _IDLE_WAIT_MS
        return found

    async def read(self, partition: int, start: int, end: int) -> Sequence[tuple[int, bytes]]:
        """What was published at `[start, end)`."""
        consumer = await self._connect()
        tp = TopicPartition(self._topic, partition)
        found: list[tuple[int, bytes]] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                consumer.assign([tp])
                if start < (await consumer.beginning_offsets([tp]))[tp]:
                    raise self._too_old("event id: what follows it is not kept any more; begin without one")
                consumer.seek(tp, start)
                while (at := await consumer.position(tp)) < end:
                    for record in (await consumer.getmany(tp, timeout_ms=200)).get(tp, ()):
                        if record.offset < end:
                            found.append((record.offset, record.value or b""))
                    if await consumer.position(tp) == at:
                        await asyncio.sleep(0)
        except OffsetOutOfRangeError:
            raise self._too_old("event id: what follows it is not kept any more; begin without one") from None
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        finally:
            await consumer.stop()
        return found

    async def stop(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await consumer.stop()

    async def _connect(self) -> Any:
        return await connected(
            self._bootstrap,
            timeout_s=self._timeout_s,
            options=self._options,
            auto_offset_reset="none",
            fetch_max_wait_ms=_BUSY_WAIT_MS,
        )

    def _away(self, error: BaseException) -> DependencyError:
        return DependencyError(f"Kafka at {self._bootstrap} does not answer: {error!r}")
