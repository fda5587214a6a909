"""A model over a log in time order that learns from each label when it is known."""

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.engine import Matrix
from models.correction import Inputs
from models.learning_model import LearningModel, unlearned
from models.online import EVERY
from models.relearning import Memory, Told
from models.tree import TreeModel

Rows = npt.NDArray[np.bool_]


class Labelled(NamedTuple):
    """Rows of a log with what will become known of them.

    Attributes:
        X: `(n, n_features)`.
        places: `(n,)` in the log.
        time_ms: `(n,)`.
        labels: `(n,)` 1 fraud, 0 genuine, -1 if nobody will say: looked at only when the time has come.
        label_ms: `(n,)` when a label comes; 0 where none does. None of these rows' own may come before the
            last of them.
        silence_is_genuine: Whether who is not named by the end of the label delay was genuine; else only
            who is said to be.
    """

    X: Matrix
    places: npt.NDArray[np.intp]
    time_ms: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    label_ms: npt.NDArray[np.int64]
    silence_is_genuine: bool = True

    def part(self, rows: slice) -> "Labelled":
        """Some of them."""
        return self._replace(
            X=self.X[rows],
            places=self.places[rows],
            time_ms=self.time_ms[rows],
            labels=self.labels[rows],
            label_ms=self.label_ms[rows],
        )


class OnlineScorer:
    """A model over a log in time order, and what it has learned from the labels known at each moment.

    Frauds are learned when they are reported, and with each the genuine transactions that were found so, or
    whose label delay was over, by then; one in five of them, by its place in the log. So weights change at
    reports and at nothing else, and scores do not depend on how the log is cut. What is reported after its
    delay was genuine until then, where silence means that: nobody had said anything is all that was known.

    Args:
        model: The trees.
        delay_ms: Label delay of transactions of which nobody says anything.
        memory: What they were trained on: with it they are grown anew now and then.
    """

    def __init__(self, model: TreeModel, delay_ms: int, memory: Memory | None = None) -> None:
        self.learning = LearningModel(model, delay_ms, memory=memory)
        self.frauds = 0
        self._columns = model.columns
        self._now = self.learning.trees
        self._delay_ms = delay_ms
        self._card = model.card
        # (when it is known, place, fraud, vector, time)
        self._waiting: list[tuple[int, int, bool, Inputs, int]] = []
        self._reports: list[int] = []

    @property
    def now(self) -> TreeModel:
        """The model with what it has learned up to now."""
        return self._now

    def learn(self, rows: Labelled) -> None:
        """Rows that nobody asks to be scored; see `segments`."""
        for _ in self.segments(rows):
            pass

    def segments(self, rows: Labelled) -> Iterator[tuple[int, int, TreeModel]]:
        """Rows in parts `[begin, end)`, each with the model as it is then."""
        time_ms = rows.time_ms
        begin = 0
        while begin < len(time_ms):
            while self._reports and self._reports[0] <= time_ms[begin]:
                self._learn_until(heapq.heappop(self._reports))
            upto = int(np.searchsorted(time_ms, self._reports[0])) if self._reports else len(time_ms)
            end = max(min(upto, len(time_ms)), begin + 1)
            self._wait(rows.part(slice(begin, end)))
            yield begin, end, self._now
            begin = end

    def _inputs(self, X: Matrix) -> Inputs:
        return X[:, self._columns].astype(np.float32)

    def _wait(self, rows: Labelled) -> None:
        X, places, time_ms, labels, label_ms, silence_is_genuine = rows
        if not self.learning.ready:
            self.learning.see(self._inputs(X))
        fraud, over = labels == 1, time_ms + self._delay_ms
        told = np.where(label_ms > 0, label_ms, over)
        sampled = places % EVERY == 0
        if silence_is_genuine:
            self._push(rows, np.minimum(told, over), sampled & ~(fraud & (told <= over)), fraud=False)
        else:
            self._push(rows, told, sampled & (labels == 0), fraud=False)
        self._push(rows, told, fraud, fraud=True)

    def _push(self, rows: Labelled, known: npt.NDArray[np.int64], which: Rows, *, fraud: bool) -> None:
        is_fraud = np.full(len(known), fraud)
        new = unlearned(self._card, self._delay_ms, rows.time_ms, known, is_fraud)
        kept = np.flatnonzero(new & which)
        columns = (
            known[kept].tolist(),
            rows.places[kept].tolist(),
            is_fraud[kept].tolist(),
            self._inputs(rows.X[kept]),
            rows.time_ms[kept].tolist(),
        )
        for entry in zip(*columns, strict=True):
            heapq.heappush(self._waiting, entry)
            if fraud:
                heapq.heappush(self._reports, entry[0])

    def _learn_until(self, time_ms: int) -> None:
        while self._waiting and self._waiting[0][0] <= time_ms:
            known_ms, place, fraud, x, at_ms = heapq.heappop(self._waiting)
            if self.learning.ready:
                self.learning.learn_one(Told(x, at_ms, fraud, place), known_ms)
                self.frauds += fraud
        self._now = self.learning.now
