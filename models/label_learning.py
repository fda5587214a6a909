"""A model that learns from the labels of a stream: what is learned when, and from which vector.

The vector of a transaction is computed again when its label has come, from its customer's history: what was
known when it was scored is in there, and nothing newer is looked at. So no vector has to be kept for the
weeks that a label takes.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.codes import transaction_hash
from features.definitions import DAY_MS, LATENESS_MS
from features.engine import Matrix
from features.record import LABEL_KIND, Records, accepted
from models.learning_model import LearningModel
from models.online import EVERY, FIRST
from models.relearning import Memory, Told
from models.tree import ModelCard, TreeModel
from schemas.label import Label

_TRIES = 3
_MOST_EARLY = 100_000
"""Labels that say genuine and correct nothing yet: of more the first are let go."""


class Finding(NamedTuple):
    """What became of a transaction.

    Attributes:
        known_ms: Since when that is known.
        number: Order of arrival.
        customer_id: Whose it was.
        transaction: Hash of its id.
        fraud: What it was.
        tries: How often it was asked for in vain.
        told: Whether a label says it, and not that none came.
    """

    known_ms: int
    number: int
    customer_id: str
    transaction: int
    fraud: bool
    tries: int = 0
    told: bool = False


class _Said(NamedTuple):
    """The newest word on a transaction that was reported as fraud.

    Attributes:
        time_ms: When it became known.
        fraud: Whether it is that, or that it was none after all.
        number: Of its finding.
        learned: Whether a model has learned the transaction as fraud.
    """

    time_ms: int
    fraud: bool
    number: int
    learned: bool


class Findings:
    """Findings in the order in which they became known.

    Frauds are known when they are reported; of the transactions that nobody reports one in `EVERY`, by the
    hash of its id, is genuine when its label delay is over. Time is the events' own: that of the newest
    transaction scored. The newest label of a transaction counts: a fraud that is withdrawn before anybody has
    learned it is none, and one that was learned already is a finding once more, as genuine.

    Args:
        delay_ms: The label delay.
        since_ms: What was known by then a model has learned already.
        every: One genuine transaction in so many.
    """

    def __init__(self, delay_ms: int, since_ms: int = 0, every: int = EVERY) -> None:
        self._delay_ms = delay_ms
        self._since_ms = since_ms
        self._every = every
        self._waiting: list[Finding] = []
        # The newest: histories still have them.
        self._sample: deque[Finding] = deque(maxlen=4 * FIRST)
        self._said: dict[tuple[str, int], _Said] = {}
        # What was said genuine and never fraud: the word before it may be read later.
        self._early: dict[tuple[str, int], Label] = {}
        self._sampled: set[int] = set()
        self._number = 0
        self.now_ms = 0

    def __len__(self) -> int:
        """Findings that are not known yet."""
        return len(self._waiting)

    def scored(self, customer_id: str, transaction_id: str, time_ms: int) -> None:
        """A transaction was scored."""
        self.now_ms = max(self.now_ms, time_ms)
        transaction = transaction_hash(transaction_id)
        finding = self._finding(time_ms + self._delay_ms, customer_id, transaction, fraud=False)
        self._sample.append(finding)
        # What is older than histories reach is asked for in vain; a correction is scored once more.
        wanted = finding.known_ms > self._since_ms and time_ms >= self.now_ms - LATENESS_MS
        if transaction % self._every == 0 and wanted and transaction not in self._sampled:
            self._sampled.add(transaction)
            heapq.heappush(self._waiting, finding)

    def reported(self, label: Label) -> None:
        """A label was read; one that says genuine is a finding where a model has learned the contrary.

        Labels may be read in another order than that in which they became known.
        """
        if label.label == "account_closed" or label.transaction_id is None:
            return
        key = (label.customer_id, transaction_hash(label.transaction_id))
        if label.label == "genuine" and key not in self._said:
            self._keep_early(key, label)
            return
        self._say(key, label)
        later = self._early.pop(key, None)
        if later is not None and later.label_time_ms > label.label_time_ms:
            self._say(key, later)

    def _keep_early(self, key: tuple[str, int], label: Label) -> None:
        before = self._early.pop(key, label)
        self._early[key] = max(before, label, key=lambda one: one.label_time_ms)
        if len(self._early) > _MOST_EARLY:
            del self._early[next(iter(self._early))]

    def _say(self, key: tuple[str, int], label: Label) -> None:
        """Take a label of a transaction that was reported as fraud, or that reports it."""
        time_ms, fraud = label.label_time_ms, label.label == "fraud"
        before = self._said.get(key)
        # Told twice, or an older one that comes late or again.
        if before is not None and (before.fraud == fraud or time_ms < before.time_ms):
            return
        finding = self._finding(time_ms, *key, fraud=fraud, told=True)
        is_new = time_ms > self._since_ms
        learned = before is not None and before.learned
        if is_new and (fraud or learned):
            heapq.heappush(self._waiting, finding)
        self._said[key] = _Said(time_ms, fraud, finding.number, learned or (fraud and not is_new))

    def due(self, most: int) -> list[Finding]:
        """The next that are known by now, in their order."""
        found: list[Finding] = []
        while self._waiting and self._waiting[0].known_ms <= self.now_ms and len(found) < most:
            finding = heapq.heappop(self._waiting)
            key = (finding.customer_id, finding.transaction)
            said = self._said.get(key)
            if finding.told:
                # Another one: a newer label says something else.
                if said is not None and said.number == finding.number:
                    self._said[key] = said._replace(learned=finding.fraud)
                    found.append(finding)
                continue
            self._sampled.discard(finding.transaction)
            # Reported after its delay was over: genuine until then, and fraud once it is reported.
            reported = said is not None and said.fraud
            if not reported and finding.known_ms - self._delay_ms >= self.now_ms - LATENESS_MS:
                found.append(finding)
        return found

    def again(self, finding: Finding) -> bool:
        """No history has the transaction of a fraud yet: ask for it again later; false after some times.

        A worker may be behind the label, or histories are being built anew.
        """
        if not finding.fraud or finding.tries == _TRIES:
            return False
        heapq.heappush(
            self._waiting, finding._replace(known_ms=self.now_ms + DAY_MS, tries=finding.tries + 1)
        )
        return True

    def sample(self, most: int) -> list[Finding]:
        """The next transactions that were scored, whatever became of them."""
        return [self._sample.popleft() for _ in range(min(most, len(self._sample)))]

    def stop_sampling(self) -> None:
        """Nobody asks for the sample any more."""
        self._sample = deque(maxlen=0)

    def _finding(
        self, known_ms: int, customer_id: str, transaction: int, *, fraud: bool, told: bool = False
    ) -> Finding:
        self._number += 1
        return Finding(known_ms, self._number, customer_id, transaction, fraud, told=told)


def event_of(history: Records, transaction: int) -> Records | None:
    """A transaction's record, shape `(1,)`, in its customer's history.

    Returns:
        `None` where it is not there, or where it is so much older than the newest that what its longest
        windows held is not kept any more.
    """
    event = accepted(history, transaction)
    if not len(event):
        return None
    newest = int(history["time_ms"][history["kind"] != LABEL_KIND].max())
    return event if int(event["time_ms"][0]) >= newest - LATENESS_MS else None


class LabelLearning:
    """What a fraud model learns from findings.

    Attributes:
        base: Card of the model that it began from.
        frauds, genuine: What was learned from.
        unknown: Findings whose transaction no history holds any more.

    Args:
        base: Without a correction, whatever it has learned before.
        delay_ms: Label delay.
        every: One genuine transaction in so many is told.
        memory: What it was trained on: with it trees are grown anew now and then.
    """

    def __init__(
        self, base: TreeModel, delay_ms: int, every: int = EVERY, memory: Memory | None = None
    ) -> None:
        self.base = base.card
        self.frauds = self.genuine = self.unknown = 0
        self._known_ms = 0
        self._columns = base.columns
        self._model = LearningModel(base, delay_ms, every=every, memory=memory)

    @property
    def ready(self) -> bool:
        """Whether enough was seen to learn."""
        return self._model.ready

    @property
    def trees(self) -> bytes:
        """Those of the card: as they were trained, or grown since."""
        return self._model.trees.trees

    @property
    def grown(self) -> int:
        """How often trees were grown anew."""
        return self._model.grown

    @property
    def share(self) -> float:
        """The posterior of the corrected scores against the trees' own: what counts of the correction."""
        return self._model.share

    def see(self, X: Matrix) -> None:
        """Vectors `(n, n_features)` of any transactions, until it is ready."""
        self._model.see(self._inputs(X))

    def learn(self, findings: Sequence[Finding], X: Matrix, times_ms: Sequence[int]) -> None:
        """Findings in their order, with the vectors `(n, n_features)` and times of their transactions."""
        for finding, x, time_ms in zip(findings, self._inputs(X), times_ms, strict=True):
            # Two customers may have a transaction of the same id.
            number = finding.transaction ^ transaction_hash(finding.customer_id)
            told = Told(x, int(time_ms), finding.fraud, number)
            self._model.learn_one(told, finding.known_ms)
            self._known_ms = max(self._known_ms, finding.known_ms)
            self.frauds += finding.fraud
            self.genuine += not finding.fraud

    def card(self, created_at: str) -> ModelCard | None:
        """Card of the base with what was learned; `None` before anything was."""
        now = self._model.now
        if now.correction is None and not self.grown:
            return None
        learned = {
            "base": self.base.version,
            "frauds": self.frauds,
            "genuine": self.genuine,
            "share": self.share,
            "known_to_ms": self._known_ms,
        }
        return replace(
            now.card,
            created_at=created_at,
            correction=now.correction.document() if now.correction is not None else {},
            data={**now.card.data, "learned_from_labels": learned},
        )

    def _inputs(self, X: Matrix) -> npt.NDArray[np.float32]:
        return X[:, self._columns].astype(np.float32)


def frauds_learned(card: ModelCard) -> int:
    """Frauds that a card's correction was learned from."""
    return int(card.data.get("learned_from_labels", {}).get("frauds", 0))


def base_version(card: ModelCard) -> str:
    """Version that a card's learning began from: its own unless labels have taught it more."""
    return str(card.data.get("learned_from_labels", {}).get("base", card.version))
