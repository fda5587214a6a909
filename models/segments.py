"""Segments: customers grouped by recency, frequency and money, each group with a name.

Hughes, A. M. (1994), Strategic Database Marketing (RFM); groups by k-means on the logarithms, k by silhouette
(Rousseeuw 1987, J. Comput. Appl. Math. 20, 53-65), stability by bootstrap (Hennig 2007, Comput. Stat. Data
Anal. 52, 258-271) with the adjusted Rand index.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.engine import Engine, Matrix
from models.tree import ModelCard
from schemas.errors import ModelError

RFM: Final = ("time_since_last_s", "txn_count_90d", "amount_sum_90d")
"""Recency, frequency, money."""
_SECONDS_A_DAY: Final = 86_400.0
_UNKNOWN_DAYS: Final = 90.0

MEANINGS: Final[Mapping[str, str]] = {
    "champions": "Here often and lately, and spend much.",
    "loyal": "Here often and lately, with ordinary amounts.",
    "big_spenders": "Seldom here, with large amounts.",
    "everyday": "Regular small payments.",
    "occasional": "Seldom here, with small amounts.",
    "at_risk": "Were active and have gone quiet.",
    "dormant": "Long gone quiet, and little before.",
}
"""Names of segments and what they mean."""

# Where a segment is looked for: recency (high is long ago), frequency, money, in standard deviations.
_PROTOTYPES: Final[Mapping[str, tuple[float, float, float]]] = {
    "champions": (-0.8, 1.2, 1.2),
    "loyal": (-0.7, 0.8, 0.0),
    "big_spenders": (0.1, -0.4, 1.0),
    "everyday": (-0.2, 0.3, -0.8),
    "occasional": (0.4, -0.7, -0.6),
    "at_risk": (1.3, 0.2, 0.2),
    "dormant": (1.6, -1.5, -1.5),
}


def rfm(X: Matrix, engine: Engine) -> npt.NDArray[np.float64]:
    """Recency in days, transactions and spending of 90 days: `(n, 3)`.

    A customer without a transaction in 90 days has 90 days, none and nothing.
    """
    values = X[:, [engine.names.index(name) for name in RFM]].astype(np.float64)
    values[:, 0] /= _SECONDS_A_DAY
    return np.where(np.isnan(values), (_UNKNOWN_DAYS, 0.0, 0.0), values)


@dataclass(frozen=True, slots=True)
class Segment:
    """A customer's segment.

    Attributes:
        name: Key of `MEANINGS`.
        confidence: 0 at the border to the next segment, towards 1 at the centre.
        next_name: The segment that is second nearest.
    """

    name: str
    confidence: float
    next_name: str
    recency_days: float
    frequency_90d: float
    monetary_90d: float


class SegmentModel:
    """Centres with names.

    Args:
        card: The model's card.
        artefact: JSON of `mean`, `scale`, `centres`, `names`.

    Raises:
        ModelError: The artefact is not of this form.
    """

    def __init__(self, card: ModelCard, artefact: bytes) -> None:
        self.card = card
        try:
            found = json.loads(artefact)
            self._mean, self._scale = np.array(found["mean"]), np.array(found["scale"])
            self._centres, self.names = np.array(found["centres"]), tuple(found["names"])
            shapes = (self._mean.shape, self._scale.shape, self._centres.shape)
            if shapes != ((3,), (3,), (len(self.names), 3)) or len(self.names) < 2:
                raise ValueError(f"shapes {shapes}")
            if not set(self.names) <= MEANINGS.keys():
                raise ValueError("segments without a meaning")
        except (ValueError, KeyError, TypeError) as bad:
            raise ModelError(f"model {card.name} {card.version} cannot be used: {bad}") from bad

    def assign(self, values: npt.NDArray[np.float64]) -> list[Segment]:
        """Segments of rows `(n, 3)` as `rfm` makes them."""
        z = (np.log1p(np.maximum(values, 0.0)) - self._mean) / self._scale
        distance = np.linalg.norm(z[:, None, :] - self._centres[None], axis=2)
        order = np.argsort(distance, axis=1, kind="stable")[:, :2]
        near, far = np.take_along_axis(distance, order, axis=1).T
        confidence = 1.0 - near / np.maximum(far, 1e-12)
        return [
            Segment(self.names[first], float(sure), self.names[second], *map(float, row))
            for (first, second), sure, row in zip(order.tolist(), confidence, values, strict=True)
        ]


def named(centres: npt.NDArray[np.float64]) -> list[str]:
    """Names for centres `(k, 3)`, each used once: those that fit best together.

    >>> named(np.array([[1.5, -1.4, -1.4], [-0.9, 1.1, 1.3]]))
    ['dormant', 'champions']
    """
    from scipy.optimize import linear_sum_assignment

    prototypes = np.array(list(_PROTOTYPES.values()))
    cost = np.linalg.norm(centres[:, None, :] - prototypes[None], axis=2) ** 2
    _, chosen = linear_sum_assignment(cost)
    return [list(_PROTOTYPES)[i] for i in chosen]


def train_segments(
    X: Matrix,
    as_of_ms: npt.NDArray[np.int64],
    engine: Engine,
    *,
    created_at: str,
    seed: int = 7,
    source: str = "",
    resamples: int = 30,
) -> tuple[ModelCard, bytes]:
    """Segments of the customers of the newest snapshot.

    Args:
        X: `(n, n_features)` customers as of days, one row a customer and day.
        as_of_ms: `(n,)` the days.
        engine: What `X` was made by.
        created_at: RFC 3339.
        seed: Of the clustering and the bootstrap.
        source: What the customers are of.
        resamples: Bootstrap samples for the stability.

    Raises:
        ModelError: Too few customers, or all are alike.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, silhouette_score

    newest = as_of_ms == as_of_ms.max(initial=0)
    values = rfm(X[newest], engine)
    if len(values) < 50:
        raise ModelError(f"segments need 50 customers, there are {len(values)}: give it more of them")
    logs = np.log1p(np.maximum(values, 0.0))
    mean, scale = logs.mean(axis=0), logs.std(axis=0)
    if (scale < 1e-9).any():
        raise ModelError("segments need customers that differ in recency, frequency and money")
    z = (logs - mean) / scale

    def fit(rows: npt.NDArray[np.float64], k: int) -> Any:
        return KMeans(n_clusters=k, n_init=5, random_state=seed).fit(rows)

    fitted = {k: fit(z, k) for k in range(3, len(_PROTOTYPES) + 1)}
    measured = {
        k: float(silhouette_score(z, m.labels_, sample_size=min(5000, len(z)), random_state=seed))
        for k, m in fitted.items()
    }
    best = max(measured, key=lambda k: measured[k])
    model, random = fitted[best], np.random.default_rng(seed)
    # Hennig: how much of the grouping comes back when the customers are drawn again.
    agreement = []
    for _ in range(resamples):
        drawn = fit(z[random.integers(0, len(z), len(z))], best)
        agreement.append(adjusted_rand_score(model.labels_, drawn.predict(z)))
    names = named(model.cluster_centers_)
    shares = np.bincount(model.labels_, minlength=best) / len(z)
    metrics = {
        "customers": len(z),
        "segments": best,
        "silhouette": measured[best],
        "silhouette_by_k": {str(k): round(v, 4) for k, v in measured.items()},
        "stability_ari_mean": float(np.mean(agreement)),
        "stability_ari_p05": float(np.quantile(agreement, 0.05)),
        "resamples": resamples,
        "shares": {name: round(float(share), 4) for name, share in zip(names, shares, strict=True)},
    }
    card = ModelCard(
        name="segments",
        version="",
        created_at=created_at,
        features_hash=engine.hash,
        feature_names=RFM,
        slope=1.0,
        intercept=0.0,
        thresholds={},
        data={"source": source, "rows": len(z), "as_of_ms": int(as_of_ms.max())},
        metrics=metrics,
    )
    artefact = {
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "centres": model.cluster_centers_.tolist(),
        "names": names,
    }
    return card, json.dumps(artefact).encode()
