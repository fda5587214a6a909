"""A fraud model that goes on learning: from each label when it comes, beside trees that do not.

A way of fraud that was never seen in training is scored low by the trees until they are trained again. Here a
logistic regression over bins of the features, with the trees' log-odds as its offset, learns what they miss.
"""

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from models.correction import WIDTH, Correction, Edges, Inputs, Places, Weights
from models.linear import log_loss
from models.tree import to_proba

Vector = npt.NDArray[np.float64]

FIRST: Final = 5_000
"""Rows whose quantiles part the features; until they are seen nothing is learned."""
EVERY: Final = 5
"""One genuine transaction in so many is learned from."""
_RATE: Final = 0.1
_REPLAYS: Final = 10
_MOST_FRAUDS: Final = 2_000
_MOST_GENUINE: Final = 20_000
_JUDGED: Final = 5_000
_FEWEST_JUDGED: Final = 2_000
"""Frauds are known before it is known of others that they are none: the first labels have too many."""
_MEMORY: Final = 0.999
"""Of the losses by which the blend is chosen: a thousand labels ago counts a third."""


class OnlineLearner:
    """Learns one labelled transaction after the other; equal sequences give equal weights.

    Each step is one of AdaGrad on the logarithmic loss. With each fraud some remembered frauds and genuine
    ones are gone through again: frauds are few, and to wait until a way of fraud has repeated itself
    is what it is to prevent. Genuine transactions are a sample, so the offset is raised by the logarithm of
    five (King and Zeng 2001), and log-odds without it are of all transactions.

    The blend is by evidence: `share` is the posterior of the corrected scores against those of the trees
    alone, with the loss each had before it learned from a label, and forgetting (Raftery et al. 2010).

    Going through frauds again makes them more frequent than they are. The intercept puts that right: with it
    the newest labels, each by the weights before it was learned from, have as many frauds expected as came.

    Args:
        n_features: Columns of the model.
        every: One genuine transaction in so many is told.
        seed: Of what is gone through again.

    Source:
        Duchi et al. (2011), JMLR 12, 2121-2159 (AdaGrad); He et al. (2014), ADKDD (a linear model that learns
        online behind trees).
    """

    def __init__(self, n_features: int, every: int = EVERY, seed: int = 7) -> None:
        self._n_features, self._every = n_features, every
        self._log_every = float(np.log(every))
        self._random = np.random.default_rng(seed)
        self._first: list[Inputs] = []
        self._edges: Edges | None = None
        # Of the newest labels: log-odds of the trees, what was added to them, and the label.
        self._judged: deque[tuple[float, float, bool]] = deque(maxlen=_JUDGED)
        self._weights: Weights = np.zeros(self._n_features * WIDTH)
        self._squares: Weights = np.ones(self._n_features * WIDTH)
        self._frauds = _Remembered(_MOST_FRAUDS)
        self._genuine = _Remembered(_MOST_GENUINE)
        self._loss = np.zeros(2)
        self.labels = 0

    @property
    def ready(self) -> bool:
        """Whether it knows enough to be told labels."""
        return self._edges is not None

    def see(self, X: Inputs) -> None:
        """Look at rows `(n, n_features)` without labels, until the bins are settled."""
        if self._edges is not None:
            return
        self._first.append(X)
        if sum(map(len, self._first)) >= FIRST:
            self._edges = Edges.of(np.concatenate(self._first)[:FIRST])
            self._first.clear()

    def correction(self) -> Correction | None:
        """What has been learned up to now; `None` before anything was."""
        if self._edges is None or not self.labels:
            return None
        return Correction(self._edges, self._weights.copy(), self.share, self._intercept())

    @property
    def share(self) -> float:
        """Of the correction that counts: the posterior of it against none."""
        return float(1.0 / (1.0 + np.exp(np.clip(self._loss[1] - self._loss[0], -50.0, 50.0))))

    def added(self, X: Inputs) -> Vector:
        """What has been learned adds to the log-odds of rows `(n, n_features)`, without the intercept."""
        if self._edges is None or not self.labels:
            return np.zeros(len(X))
        found: Vector = self.share * self._weights[self._edges.places(X)].sum(axis=1)
        return found

    def like_new(self) -> "OnlineLearner":
        """One with the same bins that has learned nothing."""
        other = OnlineLearner(self._n_features, self._every)
        other._edges = self._edges
        return other

    def _intercept(self) -> float:
        if len(self._judged) < _FEWEST_JUDGED:
            return 0.0
        offset, added, frauds = (np.array(part, dtype=np.float64) for part in zip(*self._judged, strict=True))
        margin, wanted = offset + self.share * added, frauds.sum()
        if not 0 < wanted < len(frauds):
            return 0.0
        low, high = -10.0, 10.0
        # What is expected grows with the intercept.
        while high - low > 1e-6:
            middle = (low + high) / 2
            expected = to_proba(margin + middle).sum()
            low, high = (middle, high) if expected < wanted else (low, middle)
        return float(low)

    def learn_one(self, x: Inputs, log_odds: float, fraud: bool) -> None:
        """A transaction's label has come.

        Args:
            x: `(n_features,)` its vector.
            log_odds: What the trees gave it.
            fraud: The label.
        """
        if self._edges is None:
            raise ValueError("the learner has not seen enough transactions to part their features")
        places, offset = self._edges.places(x[None])[0], log_odds + self._log_every
        added = float(self._weights[places].sum())
        margin = offset + added
        self._judged.append((offset, added, fraud))
        truth = np.array([fraud])
        losses = [log_loss(np.array([m]), truth) for m in (offset, margin)]
        self._loss = _MEMORY * self._loss + losses
        self._step(places, offset, fraud)
        self.labels += 1
        if fraud:
            for _ in range(_REPLAYS):
                for memory, label in ((self._frauds, True), (self._genuine, False)):
                    again = memory.any(self._random)
                    if again is not None:
                        self._step(*again, label)
        (self._frauds if fraud else self._genuine).add(places, offset)

    def _step(self, places: Places, offset: float, fraud: bool) -> None:
        margin = offset + self._weights[places].sum()
        slope = 1.0 / (1.0 + np.exp(-np.clip(margin, -50.0, 50.0))) - fraud
        self._squares[places] += slope * slope
        self._weights[places] -= _RATE * slope / np.sqrt(self._squares[places])


class _Remembered:
    """The newest rows of one label."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: list[tuple[Places, float]] = []
        self._next = 0

    def add(self, places: Places, offset: float) -> None:
        if len(self._rows) < self._most:
            self._rows.append((places, offset))
        else:
            self._rows[self._next] = (places, offset)
            self._next = (self._next + 1) % self._most

    def any(self, random: np.random.Generator) -> tuple[Places, float] | None:
        return self._rows[int(random.integers(len(self._rows)))] if self._rows else None
