"""Exact contributions of columns to a forest's margin: Shapley values, by quadrature instead of by subsets.

A leaf of weight v counts for a row by the product of its path's factors, one for each column on it:
whether the row goes that way (o, 0 or 1) where the column is known, and the share of training that did (z)
where it is not. The Shapley value of column j is then

    v (o_j - z_j) * integral over t in [0, 1] of  prod over k != j of (o_k t + z_k (1 - t)),

since the weight of a subset, |S|! (d - 1 - |S|)! / d!, is the integral of t^|S| (1 - t)^(d - 1 - |S|). The
integrand is a polynomial of degree d - 1, so Gauss and Legendre's rule with d / 2 points gives it exactly. At
each point a tree needs one pass down (products) and one up (sums of leaves), as all that differs between rows
is which of three rows of its tables an edge reads.

Source:
    Lundberg et al. (2020), Nature Machine Intelligence 2, 56-67 (path-dependent TreeSHAP); the integral is
    that of Owen (1972), Management Science 18(5), P64-P79.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numba
import numpy as np
import numpy.typing as npt

from models.forest import Forest, Inputs, probes_of

Table = npt.NDArray[np.float64]
Nodes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Contributions:
    """What the passes read, for each node about the edge that leads to it.

    Attributes:
        forest: The trees.
        by: `(n_nodes,)` column that the edge's node looks at; -1 of a root.
        above: `(n_nodes,)` the nearest node above whose edge looks at the same column; the root for none.
        factor: `(n_nodes, 3, n_points)` what the product is multiplied with: where the row left the path at
            an edge of the same column further up, where it leaves it here, and where it goes along.
        counted: `(n_nodes, 3, n_points)` what the sum below counts for the column, for the same three.
        expected: Mean of the margin over training.
    """

    forest: Forest
    by: Nodes
    above: Nodes
    factor: Table
    counted: Table
    expected: float

    @classmethod
    def of(cls, forest: Forest) -> Self | None:
        """Tables of a forest.

        Returns:
            `None` where no training came to some node, or where shares do not sum to margins.
        """
        cover = forest.cover.astype(np.float64)
        if not (cover > 0).all():
            return None
        by, above, share, columns = _edges(forest, cover)
        points, weights = np.polynomial.legendre.leggauss((columns + 1) // 2)
        t, weights = (points + 1) / 2, weights / 2
        here, before = share[:, np.newaxis], share[above][:, np.newaxis]
        # A root's own share is 1: what has no edge of its column above it begins there, with nothing counted.
        known, known_before = t + here * (1 - t), t + before * (1 - t)
        counted_before = (1 - before) / known_before
        apart = np.broadcast_to(here / before, known.shape)
        found = cls(
            forest,
            by,
            above,
            factor=np.stack([apart, here * (1 - t) / known_before, known / known_before], axis=1),
            counted=weights
            * np.stack(
                [
                    np.zeros_like(known),
                    -1 / (1 - t) - counted_before,
                    (1 - here) / known - counted_before,
                ],
                axis=1,
            ),
            expected=float(forest.base) + _expected(forest, cover),
        )
        # Compiles the passes, too: the first alert should not wait for that.
        probes = probes_of(forest, int(forest.column.max(initial=0)) + 1)
        sums = found(probes).sum(axis=1)
        return found if np.allclose(sums, forest.margins(probes), rtol=1e-4, atol=1e-4) else None

    def __call__(self, inputs: Inputs) -> Table:
        """Shares of the margin, `(n, n_columns + 1)`, of rows `(n, n_columns)`; the last is `expected`."""
        out = np.zeros((len(inputs), inputs.shape[1] + 1))
        trees, n_points = self.forest, self.factor.shape[2]
        ends = np.append(trees.roots[1:], len(trees.column)).astype(np.int32)
        largest = int((ends - trees.roots).max())
        _kernel(n_points)(
            inputs,
            *(trees.roots, ends, trees.column, trees.value, trees.left, trees.right, trees.unknown),
            *(self.by, self.above, self.factor, self.counted),
            *(np.empty((largest, n_points)), np.empty(largest, dtype=np.int8), out),
        )
        out[:, -1] = self.expected
        return out


def _edges(forest: Forest, cover: Table) -> tuple[Nodes, Nodes, Table, int]:
    """Of each node: column, nearest edge of it above, share of training; and most columns on a path."""
    by = np.full(len(cover), -1, dtype=np.int32)
    above, share, most = np.zeros(len(cover), dtype=np.int32), np.ones(len(cover)), 1
    waiting: list[tuple[int, int, dict[int, int]]] = [(int(root), int(root), {}) for root in forest.roots]
    while waiting:
        node, root, path = waiting.pop()
        at = int(forest.column[node])
        if at < 0:
            most = max(most, len(path))
            continue
        for child in (int(forest.left[node]), int(forest.right[node])):
            by[child], above[child] = at, path.get(at, root)
            share[child] = cover[child] / cover[node] * share[above[child]]
            waiting.append((child, root, {**path, at: child}))
    return by, above, share, most


def _expected(forest: Forest, cover: Table) -> float:
    """Sum over trees of the mean of their leaves, by how much of training came to each."""
    of_leaves = np.where(forest.column < 0, forest.value * cover, 0.0)
    return float((np.add.reduceat(of_leaves, forest.roots) / cover[forest.roots]).sum())


@cache
def _kernel(n_points: int) -> Any:
    """The passes with so many points: twice as fast where that is known when they are compiled."""

    @numba.njit(cache=True, nogil=True)
    def add_shares(  # type: ignore[no-untyped-def]
        inputs, roots, ends, column, value, left, right, unknown,
        by, above, factor, counted, products, state, out,
    ):  # fmt: skip
        # Indices are unsigned: numba looks for those that count from the end where it cannot rule them out.
        one = np.uint64(1)
        for tree in range(len(roots)):
            root = np.uint64(roots[tree])
            nodes = np.uint64(ends[tree]) - root
            for row in range(len(inputs)):
                state[0] = 2
                for q in range(n_points):
                    products[0, q] = 1.0
                for n in range(nodes):
                    node = root + np.uint64(n)
                    at = column[node]
                    if at < 0:
                        continue
                    seen = inputs[row, np.uint64(at)]
                    known_left, known_right = seen < value[node], seen >= value[node]
                    taken = left[node] if known_left else right[node] if known_right else unknown[node]
                    for child in (left[node], right[node]):
                        edge = np.uint64(child)
                        m = edge - root
                        along = state[np.uint64(above[edge]) - root] == 2
                        kind = np.uint64(along) * (one + np.uint64(child == taken))
                        state[m] = kind
                        for q in range(n_points):
                            products[m, q] = products[n, q] * factor[edge, kind, q]
                for back in range(nodes - one):
                    m = nodes - one - np.uint64(back)
                    node = root + m
                    if column[node] < 0:
                        for q in range(n_points):
                            products[m, q] *= value[node]
                    else:
                        less, more = np.uint64(left[node]) - root, np.uint64(right[node]) - root
                        for q in range(n_points):
                            products[m, q] = products[less, q] + products[more, q]
                    share, there = 0.0, np.uint64(state[m])
                    for q in range(n_points):
                        share += products[m, q] * counted[node, there, q]
                    out[row, np.uint64(by[node])] += share

    return add_shares
