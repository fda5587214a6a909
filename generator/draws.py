"""Random draws: a generator for every purpose, and choices by weight, many at once."""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Stream(IntEnum):
    """What a random number is for.

    Each purpose has a generator of its own for every day: what one of them draws shifts
    nobody else's numbers.
    """

    MERCHANTS = 1
    PROFILES = 2
    LIFETIMES = 3
    HABITS = 4
    ACCOUNTS = 5
    SPENDING = 6
    ROUTINE = 7
    LIFE = 8
    FRAUD = 9
    REPORTS = 10


def generator_for(seed: int, stream: Stream, day: int = 0) -> np.random.Generator:
    """Random numbers of one purpose and day; they depend on nothing drawn before."""
    return np.random.default_rng((seed, int(stream), day))


class Pools:
    """Members in numbered groups, each with a weight: draws one of a group, for many groups at once.

    >>> pools = Pools(group=np.array([0, 1, 0]), weight=np.array([1.0, 1.0, 3.0]), groups=2)
    >>> pools.draw(np.random.default_rng(0), np.array([1, 1, 0])).tolist()
    [1, 1, 0]
    """

    def __init__(self, group: Ints, weight: Floats, groups: int) -> None:
        self._members: Ints = np.argsort(group, kind="stable")
        self._cumulative: Floats = np.concatenate([[0.0], np.cumsum(weight[self._members])])
        self._bounds: Ints = np.searchsorted(group[self._members], np.arange(groups + 1))

    def sizes(self) -> Ints:
        """Members per group. Shape: (groups,)."""
        return np.diff(self._bounds)

    def members(self, group: int) -> Ints:
        """Members of one group."""
        return self._members[self._bounds[group] : self._bounds[group + 1]]

    def draw(self, rng: np.random.Generator, group: Ints) -> Ints:
        """One member for each entry of `group`, by weight; no group may be empty. Shape as `group`."""
        first, last = self._bounds[group], self._bounds[group + 1]
        low, high = self._cumulative[first], self._cumulative[last]
        point = low + rng.random(group.shape) * (high - low)
        # Rounding can put a point on the next group's edge.
        place = np.clip(np.searchsorted(self._cumulative, point, side="right") - 1, first, last - 1)
        return self._members[place]


def choose(rng: np.random.Generator, cumulative: Floats) -> Ints:
    """One column per row of cumulative probabilities. Shape: (n,) from (n, columns).

    >>> choose(np.random.default_rng(0), np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
    [1, 0]
    """
    point = rng.random((cumulative.shape[0], 1))
    # The last column is certain: a sum that ends at 0.9999 must not point past it.
    column: Ints = np.count_nonzero(point > cumulative[:, :-1], axis=1)
    return column
