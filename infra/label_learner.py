"""A running deployment's labels learned from, and what was learned put into the registry."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import structlog

from features.definitions import DAY_MS
from features.engine import Engine
from features.ports import HistoryStore
from infra.label_topics import LabelTopics, vectors_of
from infra.learning_metrics import LearningMetrics
from infra.retried import Stopped, retried
from models.label_learning import Findings, LabelLearning, base_version, frauds_learned
from models.learning_model import unlearned
from models.online import EVERY
from models.registry import ModelRegistry
from models.roles import Roles
from models.tree import ModelCard
from schemas.errors import ModelError
from schemas.fields import to_rfc3339
from schemas.score import Role

T = TypeVar("T")
_log = structlog.get_logger()
_BATCH = 500
_LOOK_S = 5.0
_GIVE_UP_S = 600.0
_DELAY_DAYS = 7.0


@dataclass(frozen=True, slots=True)
class Plan:
    """When what was learned is put into use, and as what.

    Attributes:
        role: Of the versions that are made.
        share: Of the customers, for a challenger.
        labels: New frauds from which on a version is made.
        seconds: Between two versions at least.
        every: One genuine transaction in so many is learned from.
    """

    role: Role = "shadow"
    share: float = 0.1
    labels: int = 25
    seconds: float = 60.0
    every: int = EVERY


@dataclass(slots=True)
class Learned:
    """What came of it.

    Attributes:
        base: Version whose trees it is beside.
        frauds, genuine: What was learned from.
        unknown: Labels whose transaction no history holds any more.
        unreadable: Messages left out.
        waiting: Findings whose time has not come.
        share: How much counts of what was learned beside the trees.
        trees_grown: How often trees were grown anew.
        versions: That were made.
    """

    base: str = ""
    frauds: int = 0
    genuine: int = 0
    unknown: int = 0
    unreadable: int = 0
    waiting: int = 0
    share: float = 0.0
    trees_grown: int = 0
    versions: tuple[str, ...] = ()


class LabelLearner:
    """Follows the topics until told to stop, or until what they held at the start is learned.

    Args:
        bootstrap: Brokers, `HOST:PORT[,HOST:PORT]`.
        store: Histories of the deployment; only read.
        registry: Its models.
        engine: Its declarations.
        plan: When a version is made.
        metrics: Told what is done.
        options: Encryption and login, from `infra.access`.
    """

    def __init__(
        self,
        bootstrap: str,
        store: HistoryStore,
        registry: ModelRegistry,
        engine: Engine,
        plan: Plan,
        metrics: LearningMetrics | None = None,
        *,
        partitions: Callable[[], Awaitable[int]],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.learned = Learned()
        self._bootstrap = bootstrap
        self._store, self._registry, self._engine, self._plan = store, registry, engine, plan
        self._metrics = metrics or LearningMetrics()
        self._partitions = partitions
        self._options = options
        self._stop = asyncio.Event()
        self._made_from = 0

    def stop(self) -> None:
        """End soon."""
        self._stop.set()

    async def run(self, *, once: bool) -> Learned:
        """Learn.

        Args:
            once: End when all is learned that the topics held at the start.

        Raises:
            DependencyError: Kafka or Redis stayed away.
            ModelError: There is no fraud model, or it is of other declarations.
        """
        done = False
        with contextlib.suppress(Stopped):
            while not done and not self._stop.is_set():
                done = await self._follow(await asyncio.to_thread(self._base), once)
        return self.learned

    def _base(self) -> ModelCard:
        card = self._registry.card("fraud", self._registry.champion("fraud"))
        card = self._registry.card("fraud", base_version(card))
        if card.features_hash != self._engine.hash:
            raise ModelError(
                f"model fraud {card.version} was trained on feature declarations {card.features_hash}, this "
                f"program runs {self._engine.hash}: start it with the declarations, entities and attributes "
                "of the worker"
            )
        if card.data.get("attributes"):
            raise ModelError(
                f"fraud {card.version} reads attributes of transactions ({card.data['attributes']}), which "
                "no history keeps: it cannot go on learning from labels; tidegate retrain learns from a file"
            )
        return card

    async def _follow(self, card: ModelCard, once: bool) -> bool:
        """Learn beside one model; returns whether that is all there is to do."""
        base = self._registry.load("fraud", self._engine.names, card.version)
        delay_days = card.data.get("label_delay_days")
        delay_ms = int(float(_DELAY_DAYS if delay_days is None else delay_days) * DAY_MS)
        # What its training had seen by its end it has learned.
        findings = Findings(delay_ms, card.trees_to_ms, self._plan.every)
        memory = await asyncio.to_thread(self._registry.memory, card)
        if memory is None:
            _log.warning("trees stay as they are: nothing of what they were trained on was kept")
        learning = LabelLearning(base, delay_ms, self._plan.every, memory)
        self._made_from = 0
        made_at, looked_at = -self._plan.seconds, time.monotonic()
        partitions = await self._retried("redis", self._partitions)
        topics = LabelTopics(self._bootstrap, partitions, options=self._options)
        # Of a log that ends before this nothing is learned: who waits for a version sees why.
        since = to_rfc3339(datetime.fromtimestamp(card.trees_to_ms / 1000, UTC))
        _log.info("learning from labels", base=card.version, known_since=since)
        try:
            await self._retried("kafka", topics.start)
            while not self._stop.is_set():
                seen = (topics.scores, topics.labels)
                await self._retried("kafka", lambda: topics.read(findings))
                self._metrics.read("score", topics.scores - seen[0])
                self._metrics.read("label", topics.labels - seen[1])
                if topics.caught_up:
                    # Not before: a label may be in a partition that is not read yet.
                    await self._learn(findings, learning, delay_ms)
                self._note(card.version, topics, findings, learning)
                ended = once and topics.caught_up
                now = time.monotonic()
                if now - looked_at >= _LOOK_S or ended:
                    looked_at = now
                    if not await self._still(card):
                        return False
                if now - made_at >= self._plan.seconds and (ended or not once):
                    made_at = now
                    await asyncio.to_thread(self._put_into_use, learning)
                if ended:
                    return True
        finally:
            await topics.stop()
        return True

    async def _still(self, card: ModelCard) -> bool:
        """Whether this is still what is in use, with what was learned beside it or without."""
        try:
            now = await asyncio.to_thread(self._base)
        except (ModelError, OSError) as error:
            _log.warning("the registry cannot be read", error=str(error))
            return True
        if now.version != card.version:
            _log.info("another model is in use: learning begins anew", before=card.version)
        return now.version == card.version

    async def _learn(self, findings: Findings, learning: LabelLearning, delay_ms: int) -> None:
        while not learning.ready and (sample := findings.sample(_BATCH)):
            _, X, _ = await self._retried("redis", lambda: vectors_of(sample, self._store, self._engine))
            learning.see(X)
        if not learning.ready:
            return
        findings.stop_sampling()
        while not self._stop.is_set() and (due := findings.due(_BATCH)):
            kept, X, times = await self._retried("redis", lambda: vectors_of(due, self._store, self._engine))
            there = {finding.number for finding in kept}
            lost = sum(f.number not in there and not findings.again(f) for f in due)
            known = np.array([finding.known_ms for finding in kept], dtype=np.int64)
            fraud = np.array([finding.fraud for finding in kept], dtype=np.bool_)
            # Of the trees' own days nobody tells what is genuine, but for what was learned as fraud.
            fresh = unlearned(learning.base, delay_ms, times, known, fraud)
            new = [row for row, one in enumerate(kept) if fresh[row] or (one.told and not one.fraud)]
            kept = [kept[row] for row in new]
            # Seconds, where trees are grown anew.
            await asyncio.to_thread(learning.learn, kept, X[new], times[new].tolist())
            frauds = sum(finding.fraud for finding in kept)
            learning.unknown += lost
            self._metrics.learned(frauds, len(kept) - frauds, lost, learning.share)

    def _note(self, version: str, topics: LabelTopics, findings: Findings, learning: LabelLearning) -> None:
        said = self.learned
        said.base, said.frauds, said.genuine = version, learning.frauds, learning.genuine
        said.unknown, said.unreadable = learning.unknown, topics.unreadable
        said.waiting, said.share = len(findings), learning.share
        said.trees_grown = learning.grown

    def _put_into_use(self, learning: LabelLearning) -> None:
        """Save a version and give it its role, where there is enough new to say."""
        try:
            self._make_version(learning)
        except (ModelError, OSError) as error:
            _log.warning("what was learned was not put into use", error=str(error))

    def _make_version(self, learning: LabelLearning) -> None:
        base = learning.base.version
        roles = self._registry.roles("fraud")
        champion = self._registry.card("fraud", roles.champion)
        before = [roles.challenger, *roles.shadows] if self._plan.role != "champion" else [roles.champion]
        mine = [c for v in before if v and base_version(c := self._registry.card("fraud", v)) == base != v]
        # One that was started again knows less at first than what is in use: that stays until it knows more.
        known = max([self._made_from, *map(frauds_learned, mine)])
        if learning.frauds - known < self._plan.labels or base_version(champion) != base:
            return
        other = roles.challenger and self._plan.role == "challenger"
        if other and roles.challenger not in [c.version for c in mine]:
            _log.warning("another challenger is in use: nothing was changed", challenger=roles.challenger)
            return
        card = learning.card(to_rfc3339(datetime.now(UTC)))
        if card is None:
            return
        card = self._registry.save(card, learning.trees)
        shadows = [c.version for c in mine]

        def change(now: Roles) -> Roles | None:
            # Somebody promoted, or gave another role, since: what is to be done is looked at again.
            return self._with_role(roles, card.version, base, shadows) if now == roles else None

        if self._registry.give_roles("fraud", card.version, change) is None:
            _log.warning("roles changed meanwhile: saved without one", version=card.version)
            return
        self._made_from = learning.frauds
        self._metrics.version()
        self.learned.versions += (card.version,)
        _log.info(
            "learned from labels",
            version=card.version,
            role=self._plan.role,
            frauds=learning.frauds,
            genuine=learning.genuine,
            share=round(learning.share, 3),
            trees_grown=learning.grown,
        )

    def _with_role(self, roles: Roles, version: str, base: str, before: Sequence[str]) -> Roles:
        if self._plan.role == "challenger":
            return roles.challenged(version, self._plan.share)
        if self._plan.role == "champion":
            # Not remembered one by one: rolling back is to reach the trees.
            return roles.promoted(version) if roles.champion == base else roles.continued(version)
        # One shadow of what labels teach, not one more with every version.
        for shadow in before:
            roles = roles.without(shadow) if shadow in roles.shadows else roles
        return roles.shadowed(version)

    async def _retried(self, dependency: str, call: Callable[[], Awaitable[T]]) -> T:
        return await retried(
            dependency,
            call,
            self._stop,
            self._metrics.retry,
            first_s=0.2,
            most_s=30.0,
            give_up_s=_GIVE_UP_S,
        )
