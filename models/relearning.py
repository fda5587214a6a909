"""Trees grown anew from what a model was trained on and the labels that have come since.

The regression beside the trees (`models.online`) has learned something from the first labels. What a way of
fraud is that was never seen in training takes trees to say; those forget what they knew unless they are shown
that again: with a model a sample of what it was trained on is kept (rehearsal: Robins 1995, Connection
Science 7, 123-146).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt

from models import arrays
from models.boosting import boost, margins
from models.drift import Bins
from models.linear import log_loss
from models.online import OnlineLearner
from models.platt import Platt
from models.tree import ModelCard, TreeModel, to_proba

Inputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]
Vector = npt.NDArray[np.float64]
T = TypeVar("T")

_MOST_FRAUDS: Final = 20_000
_MOST_GENUINE: Final = 60_000
FEWEST: Final = 50
"""New frauds before trees are grown again."""
_FEWEST_JUDGED: Final = 20
_SHARE: Final = 0.05
"""Of all frauds known that must be new: so what growing costs grows no faster than what is known."""
_BETTER: Final = 0.95
"""Trees that were trained give way where others lose so much less."""
_NO_WORSE: Final = 1.02
"""Trees that were grown here give way to others, which know more, where these lose no more than so much."""
_ROUNDS: Final = 400
# Of what is new there is little: each tree sees few columns, and no leaf is for a handful.
_PARAMS: Final = {
    "max_depth": 6,
    "eta": 0.05,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.3,
}


@dataclass(frozen=True, slots=True)
class Memory:
    """A sample of the transactions that a model was trained on; whose they were is not kept.

    Attributes:
        X: `(n, n_columns)` in the model's order of columns.
        fraud: `(n,)`; all frauds that were known, up to 20,000, the newest.
        every: The genuine ones are one in so many of all.
    """

    X: Inputs
    fraud: Labels
    every: float

    @classmethod
    def of(cls, X: Inputs, fraud: Labels, settled: Labels) -> Self:
        """From rows in time order.

        Args:
            X: `(n, n_columns)`.
            fraud: `(n,)` whether that was known.
            settled: `(n,)` whether the label delay was over: who was no fraud by then is genuine.
        """
        genuine = np.flatnonzero(settled & ~fraud)
        step = max(1, -(-len(genuine) // _MOST_GENUINE))
        rows = np.sort(np.r_[np.flatnonzero(fraud)[-_MOST_FRAUDS:], genuine[::step]])
        return cls(X[rows], fraud[rows], float(step))

    def to_bytes(self) -> bytes:
        """As a registry keeps it."""
        return arrays.to_bytes(X=self.X, fraud=self.fraud, every=self.every)

    @classmethod
    def of_bytes(cls, kept: bytes, n_columns: int) -> Self:
        """What `to_bytes` gave.

        Raises:
            ValueError: It is none of a model with so many columns.
        """
        X, fraud, every = arrays.read(kept, "X", "fraud", "every")
        if X.dtype != np.float32 or fraud.dtype != np.bool_ or X.shape != (len(fraud), n_columns):
            raise ValueError(f"{X.dtype} {X.shape} and {fraud.dtype} {fraud.shape}")
        if every.shape or not every >= 1.0:
            raise ValueError(f"one in {every}")
        return cls(X, fraud, float(every))


class Told(NamedTuple):
    """A transaction whose label has come.

    Attributes:
        x: `(n_columns,)` its vector.
        time_ms: Of the transaction.
        fraud: The label.
        number: The transaction's own: reported as fraud after its label delay, it was genuine before.
    """

    x: Inputs
    time_ms: int
    fraud: bool
    number: int


class Relearning:
    """Collects labelled transactions, and grows trees from them and a memory when enough are new.

    Equal sequences give equal trees.

    Args:
        memory: Of the model that is in use.
        every: One genuine transaction in so many is told.
        delay_ms: Label delay. Trees are shown transactions that are older: of younger ones frauds are known
            and the others are not, and what tells young from old would tell one from the other.
        seed: Of the rows and columns that each tree sees.
    """

    def __init__(self, memory: Memory, every: int, delay_ms: int, seed: int = 7) -> None:
        self._memory, self._every, self._delay_ms, self._seed = memory, every, delay_ms, seed
        # By number, as they were told.
        self._frauds: dict[int, Inputs] = {}
        self._genuine: dict[int, Inputs] = {}
        # Those that the trees in use have not seen.
        self._new: dict[int, Told] = {}
        self._due = self._enough()
        self._new_frauds = 0
        self.grown = 0

    def add(self, told: Told) -> None:
        """A transaction's label has come; of one that was told before it takes the place of the other."""
        self._genuine.pop(told.number, None)
        if not told.fraud:
            # Withdrawn after trees were grown from it.
            self._frauds.pop(told.number, None)
        before = self._new.pop(told.number, None)
        # A copy: a row of many would keep all of them in memory.
        self._new[told.number] = told._replace(x=told.x.copy())
        self._new_frauds += told.fraud - (before is not None and before.fraud)
        for oldest in _beyond(self._new, _MOST_FRAUDS + _MOST_GENUINE):
            self._new_frauds -= oldest.fraud

    @property
    def due(self) -> bool:
        """Whether enough is new."""
        return self._new_frauds >= self._due

    def grow(self, model: TreeModel, learner: OnlineLearner | None, now_ms: int) -> TreeModel | None:
        """Trees that have learned from more; `None` where they would not be better.

        Trees that have seen the older half of what is new are compared, on the newer half, with those in use
        and what a learner beside those learns from the older half. Not label by label, each judged before it
        is learned from: frauds are reported several at a time, and the first would tell the others.

        Args:
            model: In use, without a correction; it has seen nothing of what is new.
            learner: That learns beside it, if one does.
            now_ms: Time of the newest label.
        """
        # Asked again only when as much is new once more, whatever comes of it.
        self._due = self._new_frauds + self._enough()
        settled_ms = now_ms - self._delay_ms
        new = self._new.values()
        times = sorted(told.time_ms for told in new if told.fraud and told.time_ms < settled_ms)
        if len(times) < _FEWEST_JUDGED:
            return None
        middle_ms = times[len(times) // 2]
        older = [told for told in new if told.time_ms < middle_ms]
        newer = [told for told in new if middle_ms <= told.time_ms < settled_ms]
        young = {told.number: told for told in new if told.time_ms >= settled_ms}
        X, truth = np.array([told.x for told in newer]), np.array([told.fraud for told in newer])
        if truth.all() or not any(told.fraud for told in older):
            return None
        before = model.log_odds_of(X)
        if learner is not None:
            before = before + _beside(model, learner.like_new(), older).added(X)
        margin = margins(self._boost(older), X)
        platt = Platt.fit(margin, truth)
        losses = [
            log_loss(platt.log_odds(margin), truth),
            log_loss(Platt.fit(before, truth).log_odds(before), truth),
        ]
        if platt.slope <= 0 or losses[0] > losses[1] * (_NO_WORSE if self.grown else _BETTER):
            return None
        self._take_in(older + newer)
        self._new, self._new_frauds = young, sum(told.fraud for told in young.values())
        self._due = self._new_frauds + self._enough()
        self.grown += 1
        card = self._card(model.card, platt, losses, max(told.time_ms for told in newer))
        grown = model.regrown(card, bytes(self._boost().save_raw("ubj")))
        grown.card = replace(grown.card, reference={**grown.card.reference, "score": self._scores(grown)})
        return grown

    @property
    def _known_frauds(self) -> int:
        return int(self._memory.fraud.sum()) + len(self._frauds)

    def _enough(self) -> float:
        return max(FEWEST, _SHARE * self._known_frauds)

    def _take_in(self, rows: list[Told]) -> None:
        for told in rows:
            (self._frauds if told.fraud else self._genuine)[told.number] = told.x
        _beyond(self._frauds, _MOST_FRAUDS)
        _beyond(self._genuine, _MOST_GENUINE)

    def _boost(self, more: Sequence[Told] = ()) -> Any:
        memory = self._memory
        frauds = [*self._frauds.values(), *(told.x for told in more if told.fraud)]
        genuine = [*self._genuine.values(), *(told.x for told in more if not told.fraud)]
        told_X = np.array([*frauds, *genuine], dtype=np.float32).reshape(-1, memory.X.shape[1])
        X = np.concatenate([memory.X, told_X])
        y = np.r_[memory.fraud, np.repeat([True, False], [len(frauds), len(genuine)])]
        # A genuine one of the memory stands for as many as one that was told.
        weight = np.ones(len(X))
        weight[: len(memory.X)][~memory.fraud] = memory.every / self._every
        return boost(X, y, _PARAMS, _ROUNDS, seed=self._seed, weight=weight)

    def _card(self, card: ModelCard, platt: Platt, losses: Sequence[float], to_ms: int) -> ModelCard:
        learned = {
            "frauds": self._known_frauds,
            "log_loss": losses[0],
            "log_loss_before": losses[1],
            "times": self.grown,
            "to_ms": to_ms,
        }
        kept = {name: value for name, value in card.metrics.items() if name == "costs"}
        return replace(
            card,
            slope=platt.slope,
            # Genuine transactions are a sample, so odds were too high (King and Zeng 2001).
            intercept=platt.intercept - float(np.log(self._every)),
            data={**card.data, "grown_anew": learned},
            metrics={**kept, "note": "trees grown anew from labels: not measured on held-back days"},
        )

    def _scores(self, grown: TreeModel) -> dict[str, list[float]]:
        """How its scores are distributed, of as many frauds as there are among all transactions."""
        memory = self._memory
        frauds = memory.X[memory.fraud][:: max(1, round(memory.every))]
        rows = np.concatenate([memory.X[~memory.fraud], frauds])
        return Bins.of(to_proba(grown.log_odds_of(rows))).document()


def _beyond(kept: dict[int, T], most: int) -> list[T]:
    """Take out the first, so that no more than so many are left."""
    first = list(islice(kept, max(0, len(kept) - most)))
    return [kept.pop(number) for number in first]


def _beside(trees: TreeModel, learner: OnlineLearner, rows: Sequence[Told]) -> OnlineLearner:
    """The learner, once it has learned beside these trees from these rows."""
    offsets = trees.log_odds_of(np.array([told.x for told in rows]))
    for told, offset in zip(rows, offsets.tolist(), strict=True):
        learner.learn_one(told.x, offset, told.fraud)
    return learner
