"""A fraud model that goes on learning: trees, a correction beside them, and now and then trees grown anew."""

import heapq

import numpy as np
import numpy.typing as npt

from models.correction import Inputs
from models.online import EVERY, FIRST, OnlineLearner
from models.relearning import Memory, Relearning, Told
from models.tree import ModelCard, TreeModel


def unlearned(
    card: ModelCard,
    delay_ms: int,
    time_ms: npt.NDArray[np.int64],
    known_ms: npt.NDArray[np.int64],
    fraud: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Which labelled transactions, `(n,)`, a model's trees have not learned from.

    Those of later days than theirs, and frauds of their days whose label they did not know.
    """
    to_ms = card.trees_to_ms
    return (time_ms > to_ms) | (fraud & (known_ms > to_ms + delay_ms))


class LearningModel:
    """Learns one labelled transaction after the other; equal sequences give equal models.

    Args:
        model: The trees; what had been learned beside them before is left out.
        delay_ms: Label delay.
        every: One genuine transaction in so many is told.
        memory: What the trees were trained on; without it they stay as they are.
    """

    def __init__(
        self,
        model: TreeModel,
        delay_ms: int,
        *,
        every: int = EVERY,
        memory: Memory | None = None,
    ) -> None:
        self.trees = model.corrected(None)
        self._trees_to_ms = model.card.trees_to_ms
        self._delay_ms = delay_ms
        # Frauds whose label delay is not over: (when it is, order of arrival, the transaction).
        self._young: list[tuple[int, int, Told]] = []
        self._seen = 0
        # Not beside trees that were grown here: they learn from the same labels, and what it makes of several
        # frauds reported at once, of which the first tells the others, would be added to what they know.
        self._learner: OnlineLearner | None = OnlineLearner(len(model.columns), every)
        self._relearning = Relearning(memory, every, delay_ms) if memory is not None else None
        if memory is not None:
            genuine = memory.X[~memory.fraud]
            # Of all its days: at first windows are still filling.
            self._learner.see(genuine[:: max(1, len(genuine) // FIRST)])

    @property
    def ready(self) -> bool:
        """Whether enough was seen to learn."""
        return self._learner is None or self._learner.ready

    @property
    def share(self) -> float:
        """How much counts of what was learned beside the trees, 0 to 1."""
        return self._learner.share if self._learner is not None and self._learner.labels else 0.0

    @property
    def grown(self) -> int:
        """How often trees were grown anew."""
        return self._relearning.grown if self._relearning is not None else 0

    @property
    def now(self) -> TreeModel:
        """The model with all it has learned."""
        return self.trees.corrected(self._learner.correction() if self._learner is not None else None)

    def see(self, X: Inputs) -> None:
        """Rows `(n, n_columns)` without labels, until it is ready."""
        if self._learner is not None:
            self._learner.see(X)

    def learn_one(self, told: Told, known_ms: int) -> None:
        """A transaction's label has come.

        Args:
            told: The transaction, its vector in the order of the model's columns.
            known_ms: When the label came; never before that of an earlier call.
        """
        if self._learner is not None:
            self._learn_beside(self._learner, told, known_ms)
        if self._relearning is None:
            return
        self._relearning.add(told)
        if self._relearning.due:
            grown = self._relearning.grow(self.trees, self._learner, known_ms)
            if grown is not None:
                self.trees, self._learner = grown, None

    def _learn_beside(self, learner: OnlineLearner, told: Told, known_ms: int) -> None:
        """Learn what is known of transactions of which either would be known.

        Of those whose label delay is not over the frauds are known and the others are not, and of the days
        that the trees learned from nothing but frauds comes any more: taken alone, they would say that
        everything is fraud.
        """
        while self._young and self._young[0][0] <= known_ms:
            self._learn_at_once(learner, heapq.heappop(self._young)[2])
        over_ms = told.time_ms + self._delay_ms
        if told.fraud and told.time_ms <= self._trees_to_ms:
            return
        if told.fraud and over_ms > known_ms:
            self._seen += 1
            heapq.heappush(self._young, (over_ms, self._seen, told))
        else:
            self._learn_at_once(learner, told)

    def _learn_at_once(self, learner: OnlineLearner, told: Told) -> None:
        offset = float(self.trees.log_odds_of(told.x[None])[0])
        learner.learn_one(told.x, offset, told.fraud)
