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
    """

    roots: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    value: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    unknown: npt.NDArray[np.int32]
    cover: npt.NDArray[np.float32]
    base: np.float32

    def margins(self, inputs: Inputs) -> Margins:
        """Margins, shape `(n,)`, of rows `(n, n_columns)` in the model's own order; NaN is unknown."""
        out = np.empty(len(inputs), dtype=np.float32)
        _walk(
            inputs, self.roots, self.column, self.value, self.left, self.right, self.unknown, self.base, out
        )
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
    unknown = np.where(joined("default_left", np.int32) == 1, left, right)
    column = np.where(is_leaf, -1, joined("split_indices", np.int32))
    return Forest(
        roots,
        column.astype(np.int32),
        joined("split_conditions", np.float32),
        left,
        right,
        unknown.astype(np.int32),
        joined("sum_hessian", np.float32),
        base,
    )


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


@numba.njit(cache=True)
def _walk(inputs, roots, column, value, left, right, unknown, base, out):  # type: ignore[no-untyped-def]
    for row in range(len(inputs)):
        # In single precision and in the order of the trees, as XGBoost adds them up.
        margin = base
        for root in roots:
            node = root
            at = column[node]
            while at >= 0:
                seen = inputs[row, at]
                if seen < value[node]:
                    node = left[node]
                elif seen >= value[node]:
                    node = right[node]
                else:
                    node = unknown[node]
                at = column[node]
            margin = np.float32(margin + value[node])
        out[row] = margin
