"""Published fraud scores, read and compared with what their models say of rebuilt vectors."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from features.engine import Engine
from models.anomaly import AnomalyModel
from models.differences import or_none
from models.tree import TreeModel

UNPUBLISHED: Final = "features of merchants and devices not published (TIDEGATE_SCORE_FEATURES)"
"""Why a score that reads them cannot be compared."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published fraud score.

    Attributes:
        offset: Of the transaction it is the score of.
        features: The vector where it was published; NaN is unknown.
        anomaly: Version of the model that said how unusual it is, and what it said; `None` where none did.
    """

    offset: int
    transaction_id: str
    version: str
    score: float
    features: Mapping[str, float] | None = None
    anomaly: tuple[str, float] | None = None


def read_score(value: bytes | None, topic: str, partition: int) -> Published | None:
    """A message of `scores.fraud`; `None` where it is no score of a record of this partition."""
    try:
        score = orjson.loads(value or b"")
        source = score["source"]
        if (source["topic"], source["partition"]) != (topic, partition):
            return None
        vector = score.get("features")
        features = None
        if vector is not None:
            features = {name: float("nan") if v is None else float(v) for name, v in vector.items()}
        said = score.get("anomaly")
        anomaly = None if said is None else (str(said["model"]["version"]), float(said["score"]))
        return Published(
            int(source["offset"]),
            str(score["transaction_id"]),
            str(score["model"]["version"]),
            float(score["score"]),
            features,
            anomaly,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class ScoreComparison:
    """Compares published scores and vectors with rebuilt ones.

    Args:
        engine: Names the columns of vectors.
        model_of: The fraud model of a version; `None` where there is none to compare with.
        anomaly_of: The anomaly model of a version; `None` where there is none to compare with.
    """

    def __init__(
        self,
        engine: Engine,
        model_of: Callable[[str], TreeModel | None],
        anomaly_of: Callable[[str], AnomalyModel | None],
    ) -> None:
        self._engine = engine
        self._model_of = model_of
        self._anomaly_of = anomaly_of
        self._proba: dict[tuple[str, bytes], float] = {}

    def differing_rows(
        self,
        offsets: Sequence[int],
        expected: Mapping[int, Sequence[Published]],
        X: npt.NDArray[np.float64],
        accepted: npt.NDArray[np.bool_],
    ) -> list[int]:
        """Rows of which a published score or vector is another."""
        by_version: dict[str, list[int]] = defaultdict(list)
        for row, offset in enumerate(offsets):
            if accepted[row]:
                for version in {score.version for score in expected.get(offset, ())}:
                    by_version[version].append(row)
        self._proba = {}
        for version, rows in by_version.items():
            model = self._model_of(version)
            if model is not None:
                for row, proba in zip(rows, model.predict_proba(X[rows]).tolist(), strict=True):
                    self._proba[version, X[row].tobytes()] = proba
        return [
            row
            for row, offset in enumerate(offsets)
            if accepted[row]
            and any(self.differing_values(score, X[row]) for score in expected.get(offset, ()))
        ]

    def why_not(self, score: Published) -> str:
        """Why `differing_values` cannot compare."""
        if self._engine.entities and score.features is None:
            return UNPUBLISHED
        return f"model {score.version} or its declarations not here"

    def differing_values(
        self, score: Published, vector: npt.NDArray[np.float64]
    ) -> dict[str, tuple[Any, Any]] | None:
        """What differs between a score and the rebuilt one; `None` where they cannot be compared."""
        model = self._model_of(score.version)
        names = self._engine.names
        same_names = score.features is not None and score.features.keys() == set(names)
        if model is None and not same_names:
            return None
        if count := len(self._engine.entities):
            # Of all partitions' events, and this is one partition: they are taken as they were published.
            if score.features is None or not same_names:
                return None
            vector = np.r_[vector[:-count], [score.features[name] for name in names[-count:]]]
        values: dict[str, tuple[Any, Any]] = {}
        if model is not None:
            key = (score.version, vector.tobytes())
            proba = self._proba.get(key)
            if proba is None:
                proba = float(model.predict_proba(vector[np.newaxis])[0])
            if score.score != proba:
                values["score"] = (score.score, proba)
        if score.anomaly is not None and (unusual := self._anomaly_of(score.anomaly[0])) is not None:
            rebuilt_anomaly = float(unusual.score(vector[np.newaxis])[0])
            if score.anomaly[1] != rebuilt_anomaly:
                values["anomaly"] = (score.anomaly[1], rebuilt_anomaly)
        if same_names and score.features is not None:
            for name, rebuilt in zip(names, vector.tolist(), strict=True):
                found = score.features[name]
                # NaN is unknown on both sides; -0.0 is 0.0 in a message.
                if found != rebuilt and not (found != found and rebuilt != rebuilt):
                    values[name] = (or_none(found), or_none(rebuilt))
        return values
