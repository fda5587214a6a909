"""Who scores whom: the versions of a model that are in use, and what for."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.engine import Matrix
from features.entity_counts import customer_hashes
from models.tree import TreeModel
from schemas.errors import ModelError

_REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Roles:
    """Versions of one model by role.

    Attributes:
        champion: Scores everybody but the challenger's share; empty before the first promotion.
        challenger: Scores a share of the customers in the champion's place; empty for none.
        share: Of the customers, in (0, 1); 0 without a challenger.
        shadows: Score everybody, for `scores.shadow` only.
        former: Champions before this one, oldest first.
    """

    champion: str = ""
    challenger: str = ""
    share: float = 0.0
    shadows: tuple[str, ...] = ()
    former: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.challenger and not 0 < self.share < 1:
            raise ModelError(f"a challenger's share is above 0 and below 1, not {self.share:g}")

    def of(self, version: str) -> str:
        """Role of a version; empty for none."""
        if version == self.champion:
            return "champion"
        if version == self.challenger:
            return "challenger"
        return "shadow" if version in self.shadows else ""

    def promoted(self, version: str) -> "Roles":
        """With another champion; it leaves any other role, and the one before is remembered."""
        if version == self.champion:
            return self
        former = (*self.former, self.champion) if self.champion else self.former
        return replace(self.without(version), champion=version, former=former[-_REMEMBERED:])

    def continued(self, version: str) -> "Roles":
        """With another champion in the place of the one before, which is not remembered."""
        return replace(self.without(version), champion=version)

    def challenged(self, version: str, share: float) -> "Roles":
        """With a challenger.

        Raises:
            ModelError: It is the champion, or the share is none.
        """
        self._require_other(version)
        return replace(self.without(version), challenger=version, share=share)

    def shadowed(self, version: str) -> "Roles":
        """With one more shadow.

        Raises:
            ModelError: It is the champion.
        """
        self._require_other(version)
        rest = self.without(version)
        return replace(rest, shadows=(*rest.shadows, version))

    def without(self, version: str) -> "Roles":
        """Where a version is neither challenger nor shadow."""
        rest = replace(self, shadows=tuple(v for v in self.shadows if v != version))
        return replace(rest, challenger="", share=0.0) if self.challenger == version else rest

    def rolled_back(self) -> "Roles":
        """With the champion before this one, which is forgotten.

        Raises:
            ModelError: There was none.
        """
        if not self.former:
            raise ModelError(f"there is no champion before {self.champion or 'the first'} to go back to")
        rest = self.without(self.former[-1])
        return replace(rest, champion=self.former[-1], former=self.former[:-1])

    def _require_other(self, version: str) -> None:
        if version == self.champion:
            raise ModelError(f"{version} is the champion: promote another one first")


def identity(roles: Mapping[str, Roles]) -> str:
    """Text that names a set of models and how they share customers; equal for what scores the same.

    >>> identity({"fraud": Roles("v2", "v3", 0.1, former=("v1",))})
    '{"fraud":{"challenger":"v3","champion":"v2","shadows":[],"share":0.1}}'
    """
    said = {name: {k: v for k, v in asdict(r).items() if k != "former"} for name, r in roles.items()}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def of_identity(text: str) -> dict[str, Roles]:
    """What `identity` named.

    Raises:
        ModelError: It is no such text.
    """
    try:
        return {name: read_roles(said) for name, said in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError) as bad:
        raise ModelError(f"{text[:200]!r} names no set of models") from bad


def read_roles(said: object) -> Roles:
    """Roles from their JSON form.

    Raises:
        ValueError: It is no such form.
    """
    if not isinstance(said, Mapping):
        raise ValueError("roles are an object")
    champion, challenger, share = said.get("champion", ""), said.get("challenger", ""), said.get("share", 0)
    lists = [said.get(name, []) for name in ("shadows", "former")]
    texts = [champion, challenger, *(v for versions in lists if isinstance(versions, list) for v in versions)]
    if not (all(isinstance(t, str) for t in texts) and isinstance(share, int | float)):
        raise ValueError("versions are texts and the share is a number")
    if not all(isinstance(versions, list) for versions in lists):
        raise ValueError("shadows and former champions are lists")
    # They become names of folders.
    if wrong := [text for text in texts if text and not re.fullmatch(r"v[1-9]\d{0,17}", text)]:
        raise ValueError(f"versions are v1, v2 and so on, not {wrong[0][:40]!a}")
    if not 0 <= share <= 1:
        raise ValueError("the share is of the customers, 0 to 1")
    return Roles(champion, challenger, float(share), tuple(lists[0]), tuple(lists[1]))


@dataclass(frozen=True, slots=True)
class Challenger:
    """A model that scores some customers in the champion's place, for everybody to see.

    Attributes:
        model: With the role `challenger`.
        share: Of the customers that are its own, by the hash of their id: a customer stays with one
            model, whatever process or partition asks.
    """

    model: TreeModel
    share: float

    def has(self, customer_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which customers are its own."""
        return in_share(customer_ids, self.share)


def model_for(champion: TreeModel, challenger: Challenger | None, customer_id: str) -> TreeModel:
    """The one model that scores a customer."""
    return challenger.model if challenger is not None and challenger.has([customer_id])[0] else champion


def split(
    champion: TreeModel,
    challenger: Challenger | None,
    customer_ids: Sequence[str],
    rows: npt.NDArray[np.intp],
) -> Iterator[tuple[TreeModel, npt.NDArray[np.intp]]]:
    """Rows by the one model that scores them.

    Args:
        champion: Scores whom the challenger does not.
        challenger: `None` for none.
        customer_ids: Of all rows.
        rows: Those that are to be scored.
    """
    if challenger is None:
        yield champion, rows
        return
    its_own = challenger.has([customer_ids[row] for row in rows.tolist()])
    yield champion, rows[~its_own]
    yield challenger.model, rows[its_own]


class ShadowScore(NamedTuple):
    """What a shadow says of a row or customer.

    Attributes:
        decision: Index into `models.pipeline.DECISIONS`, or `models.churn_scores.BANDS` of churn.
    """

    model: TreeModel
    proba: float
    decision: int


def shadow_scores(
    shadows: Sequence[TreeModel],
    X: Matrix,
    rows: npt.NDArray[np.intp],
    decide: Callable[[TreeModel, npt.NDArray[np.float64]], npt.NDArray[np.int8]],
) -> dict[int, list[ShadowScore]]:
    """What shadows say of rows, by row; empty without shadows.

    Args:
        shadows: Each scores all of the rows.
        X: Vectors.
        rows: Those that are to be scored.
        decide: Makes decisions or bands of a model's probabilities.
    """
    found: dict[int, list[ShadowScore]] = {}
    for model in shadows:
        proba = model.predict_proba(X[rows])
        for row, p, d in zip(rows.tolist(), proba.tolist(), decide(model, proba).tolist(), strict=True):
            found.setdefault(row, []).append(ShadowScore(model, p, d))
    return found


def in_share(customer_ids: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """Which customers are in the first `share` of all hashes.

    >>> bool(in_share(["c-1"], 0.0)[0]), bool(in_share(["c-1"], 1.0)[0])
    (False, True)
    """
    return customer_hashes(customer_ids) / 2.0**32 < share
