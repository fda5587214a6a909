"""Margins of XGBoost's trees by a compiled walk: the same bits, without a call's fixed cost.

`Booster.inplace_predict` takes half a millisecond of processor time for a single row, of which walking the
trees is a fiftieth: at low rates chunks are small, and that was most of what a score waited for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import orjson

Inputs = npt.NDArray[np.float32]
Margins = npt.NDArray[np.float32]

_PROBES: Final = 64
_BLOCK: Final = 64
"""Rows that take a step together: their values and places fit into a processor's first cache."""
_NODE: Final = np.dtype([("value", "<f4"), ("code", "<i4")])
"""The code is twice the column, and one more where unknown goes the way of what is not below the value."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Nodes for a walk without branches: in each tree as many steps as it is deep, whichever way a row goes.

    Which way that is cannot be predicted, so branches cost four times as much as steps in vain.

    Attributes:
        depths: `(n_trees,)` steps from a root to its farthest leaf.
        nodes: `(n_nodes,)` of `_NODE`; a leaf's value is its weight.
        children: `(2 * n_nodes,)` where a row goes on below a node's value, and where else; of a leaf that
            is itself.
    """

    depths: npt.NDArray[np.int32]
    nodes: npt.NDArray[np.void]
    children: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees as columns of nodes.

    Attributes:
        roots: `(n_trees,)` first node of each tree.
        column: `(n_nodes,)` column that a node looks at; -1 of a leaf.
        value: `(n_nodes,)` threshold of a node: what is less goes left; weight of a leaf.
        left, right, unknown: `(n_nodes,)` where a row goes on; `unknown` where its value is NaN.
        cover: `(n_nodes,)` how much of training came to a node (sum of second derivatives).
        base: Margin before the first tree.
        steps: The same nodes as a walk takes them.
    """

    roots: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    unknown: npt.NDArray[np.int32]
    cover: npt.NDArray[np.float32]
    base: np.float32
    steps: Steps

    def margins(self, inputs: Inputs) -> Margins:
        """Margins, shape `(n,)`, of rows `(n, n_columns)` in the model's own order; NaN is unknown."""
        out = np.full(len(inputs), self.base, dtype=np.float32)
        _walk(inputs, self.roots, self.steps.depths, self.steps.nodes, self.steps.children, out)
        return out


def read_forest(document: bytes, margins: Callable[[Inputs], Margins]) -> Forest | None:
    """The trees of a model that XGBoost has written as JSON.

    Args:
        document: What `Booster.save_raw("json")` returns.
        margins: XGBoost's own.

    Returns:
        `None` where the walk does not give XGBoost's own bits on rows about its thresholds: other boosters,
        categorical splits, several classes. XGBoost is asked then.
    """
    learner = orjson.loads(document)["learner"]
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree" or learner["objective"]["name"] != "binary:logistic":
        return None
    trees = booster["model"]["trees"]
    if not trees or any(any(tree["split_type"]) for tree in trees):
        return None
    share = np.float32(learner["learner_model_param"]["base_score"].strip("[]"))
    # Rounded as XGBoost rounds it.
    base = -np.log(np.float32(1) / share - np.float32(1))
    forest = _columns(trees, base)
    probes = probes_of(forest, int(learner["learner_model_param"]["num_feature"]))
    wanted = margins(probes)
    # A logarithm's last bit is the library's own affair.
    for candidate in (base, np.nextafter(base, np.float32(-9)), np.nextafter(base, np.float32(9))):
        forest = _columns(trees, np.float32(candidate))
        if np.array_equal(forest.margins(probes), wanted):
            return forest
    return None


def _columns(trees: list[dict[str, Any]], base: np.float32) -> Forest:
    sizes = [len(tree["left_children"]) for tree in trees]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)

    def joined(name: str, dtype: type) -> npt.NDArray[Any]:
        return np.concatenate([np.asarray(tree[name], dtype=dtype) for tree in trees])

    first = np.repeat(roots, sizes)
    left, right = joined("left_children", np.int32), joined("right_children", np.int32)
    is_leaf = left < 0
    left, right = left + first, right + first
    goes_left = joined("default_left", np.int32) == 1
    column, value = joined("split_indices", np.int32), joined("split_conditions", np.float32)
    nodes, itself = np.zeros(len(column), dtype=_NODE), np.arange(len(column))
    nodes["value"], nodes["code"] = value, np.where(is_leaf, 0, 2 * column + ~goes_left)
    children = np.where(is_leaf, itself, [left, right]).T
    return Forest(
        roots,
        np.where(is_leaf, -1, column).astype(np.int32),
        value,
        left,
        right,
        np.where(goes_left, left, right).astype(np.int32),
        joined("sum_hessian", np.float32),
        base,
        Steps(_depths(roots, children), nodes, children.astype(np.int32).ravel()),
    )


def _depths(roots: npt.NDArray[np.int32], children: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
    """How many steps from each root lead to leaves only."""
    depths = np.zeros(len(roots), dtype=np.int32)
    level, tree = roots.astype(np.intp), np.arange(len(roots))
    while len(level):
        inner = children[level, 0] != level
        level, tree = children[level[inner]].ravel(), np.repeat(tree[inner], 2)
        depths[np.unique(tree)] += 1
    return depths


def probes_of(forest: Forest, columns: int) -> Inputs:
    """Rows of the trees' own thresholds, a step to their left, far away, and unknown."""
    random = np.random.default_rng(1)
    rows = random.choice(np.array([np.nan, 0, 1e12, -1e12]), (_PROBES, columns)).astype(np.float32)
    for column in range(columns):
        thresholds = forest.value[forest.column == column]
        if len(thresholds):
            near = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(-np.inf))])
            chosen = random.random(_PROBES) < 0.8
            rows[chosen, column] = random.choice(near, int(chosen.sum()))
    return rows


@numba.njit(cache=True, nogil=True)
def _walk(inputs, roots, depths, nodes, children, out):  # type: ignore[no-untyped-def]
    places = np.empty(_BLOCK, dtype=np.uint64)
    for first in range(0, len(inputs), _BLOCK):
        size = min(_BLOCK, len(inputs) - first)
        rows = inputs[first : first + size]
        for tree in range(len(roots)):
            places[:size] = roots[tree]
            for _ in range(depths[tree]):
                for k in range(size):
                    node = nodes[places[k]]
                    seen = rows[k, np.uint64(node.code >> np.int32(1))]
                    above = (seen >= node.value) | ((not seen < node.value) & (node.code & np.int32(1) != 0))
                    # Unsigned: numba looks for indices that count from the end.
                    places[k] = np.uint64(children[np.uint64(2) * places[k] + np.uint64(above)])
            for k in range(size):
                # In single precision and in the order of the trees, as XGBoost adds them up.
                out[first + k] = np.float32(out[first + k] + nodes[places[k]].value)
