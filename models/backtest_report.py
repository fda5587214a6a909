"""What a backtest found: figures with intervals, curves, decisions and their effect."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import brier_score_loss

from features.codes import CATEGORIES, CHANNELS
from features.definitions import DAY_MS
from models import evaluation
from models.backtest import TRAITS, UNTOLD, ScoredRows
from models.calibration import Reliability, reliability
from models.currencies import Currencies, mixed
from models.evaluation import DailyCards, Figure, Labels, Vector
from models.pipeline import DECISIONS
from models.tree import ModelCard
from schemas.fields import epoch_ms_to_rfc3339

_SHARES: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_ANOMALY_RESAMPLES: Final = 50
_NEVER: Final = np.iinfo(np.int64).max
_LABELS: Final = {
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "recall_at_1pct_fpr": "recall at 1 % false positives",
    "recall_at_1pct_review": "recall at 1 % of transactions reviewed",
}


@dataclass(frozen=True, slots=True)
class Scored:
    """All scored transactions as columns; see `ScoredRows`.

    Attributes:
        customer: `(n,)` codes from 0.
        victim_ms: `(n,)` since when a fraud of the customer was known; the largest number for never.
    """

    time_ms: npt.NDArray[np.int64]
    score: Vector
    decisions: npt.NDArray[np.int8]
    label: npt.NDArray[np.int8]
    anomaly: Vector
    traits: npt.NDArray[np.float64]
    customer: npt.NDArray[np.intp]
    victim_ms: npt.NDArray[np.int64]

    @classmethod
    def of(cls, blocks: Sequence[ScoredRows], victims: Mapping[str, int]) -> "Scored":
        """All blocks as one."""
        codes: dict[str, int] = {}
        customer = [codes.setdefault(c, len(codes)) for block in blocks for c in block.customer_ids]
        return cls(
            np.concatenate([block.time_ms for block in blocks]),
            np.concatenate([block.score for block in blocks]),
            np.concatenate([block.decisions for block in blocks]),
            np.concatenate([block.label for block in blocks]),
            np.concatenate([block.anomaly for block in blocks]),
            np.concatenate([block.traits for block in blocks]),
            np.array(customer, dtype=np.intp),
            np.array([victims.get(c, _NEVER) for c in codes], dtype=np.int64)[customer],
        )

    def where(self, rows: Labels) -> "Scored":
        """Some of them."""
        return Scored(*(getattr(self, name)[rows] for name in self.__slots__))

    @property
    def y(self) -> Labels:
        """`(n,)` whether fraud."""
        frauds: Labels = self.label == 1
        return frauds


@dataclass(frozen=True, slots=True)
class ThresholdEffect:
    """What a threshold would have done.

    Attributes:
        share: Of transactions that reach it.
        value_found: Amount of the frauds that reach it.
        value_share: Of the amount of all frauds.
    """

    threshold: float
    share: float
    alerts_a_day: float
    precision: float
    recall: float
    value_found: float
    value_share: float


@dataclass(frozen=True, slots=True)
class SegmentFigures:
    """A part of the transactions."""

    kind: str
    name: str
    rows: int
    frauds: int
    average_precision: float
    recall_at_review: float
    alerts: int


@dataclass(frozen=True, slots=True)
class FraudReport:
    """What a backtest found.

    Attributes:
        every: Figures over all labelled transactions.
        anomaly: Of the anomaly score, which saw no label.
        protocol: Over those of customers of whom no fraud was known when the day began.
        cards: Days of card precision, by the protocol.
        brier, calibration: Of all labelled; `None` where there are none.
        notes: Sentences on what the figures are not.
    """

    scored: Scored
    judged: Scored
    every: dict[str, Figure]
    protocol: dict[str, Figure]
    protocol_rows: int
    anomaly: dict[str, Figure]
    cards: DailyCards
    cards_a_day: int
    brier: float
    calibration: Reliability | None
    decisions: dict[str, int]
    alert_precision: Figure
    alert_recall: Figure
    effects: list[ThresholdEffect]
    segments: list[SegmentFigures]
    features: list[tuple[str, float]]
    notes: list[str]

    @property
    def days(self) -> int:
        """Days (UTC) from the first to the last scored transaction."""
        times = self.scored.time_ms
        return int(times.max() // DAY_MS - times.min() // DAY_MS) + 1 if len(times) else 0

    @property
    def card_precision(self) -> Figure:
        """Mean over days."""
        return evaluation.mean_interval(self.cards.precision)

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Figures in words."""
        for name, figure in self.every.items():
            yield _LABELS[name], figure
        for name, figure in self.protocol.items():
            yield f"{_LABELS[name]}, known victims left", figure
        for name, figure in self.anomaly.items():
            yield f"{_LABELS[name]}, anomaly score without labels", figure
        yield f"card precision@{self.cards_a_day} a day", self.card_precision
        yield "precision of alerts", self.alert_precision
        yield "recall of alerts", self.alert_recall

    def document(self) -> dict[str, Any]:
        """For JSON; what is not defined is null."""
        rows = len(self.judged.y)
        return {
            "from": epoch_ms_to_rfc3339(int(self.scored.time_ms.min())) if len(self.scored.time_ms) else None,
            "to": epoch_ms_to_rfc3339(int(self.scored.time_ms.max())) if len(self.scored.time_ms) else None,
            "labelled": rows,
            "frauds": int(self.judged.y.sum()),
            "figures": {name: figure.document() for name, figure in self.every.items()},
            "protocol": {
                "rows": self.protocol_rows,
                **{name: figure.document() for name, figure in self.protocol.items()},
                f"card_precision_at_{self.cards_a_day}": self.card_precision.document(),
            },
            "anomaly": {name: figure.document() for name, figure in self.anomaly.items()},
            "brier": _or_none(self.brier),
            "calibration_error": _or_none(self.calibration.error if self.calibration else np.nan),
            "decisions": self.decisions,
            "alerts_a_day": round(
                (self.decisions["review"] + self.decisions["block"]) / max(self.days, 1), 2
            ),
            "alert_precision": self.alert_precision.document(),
            "alert_recall": self.alert_recall.document(),
            "thresholds": [_rounded(effect) for effect in self.effects],
            "segments": [_rounded(segment) for segment in self.segments],
            "top_features": [{"feature": name, "contribution": round(c, 4)} for name, c in self.features],
            "notes": self.notes,
        }


def fraud_report(
    blocks: Sequence[ScoredRows],
    card: ModelCard,
    victims: Mapping[str, int],
    *,
    resamples: int = 200,
    cards_a_day: int = 100,
    currencies: Currencies | None = None,
) -> FraudReport:
    """Compare scores with what became of the transactions.

    Args:
        blocks: What `backtest_fraud` gave.
        card: Of the model.
        victims: Since when each defrauded customer was known to be one, of the whole log
            (`backtest.victims`).
        resamples: Bootstrap samples of intervals.
        cards_a_day: Customers that are looked at each day.
        currencies: Of the scored transactions.
    """
    scored = Scored.of(blocks, victims)
    judged = scored.where(scored.label != UNTOLD)
    y, alerted = judged.y, judged.decisions > 0
    unknown = judged.where(evaluation.not_yet_known(judged.time_ms, judged.victim_ms))
    rated = judged.where(~np.isnan(judged.anomaly))
    has_both = bool(y.any() and not y.all())
    return FraudReport(
        scored,
        judged,
        evaluation.with_intervals(y, judged.score, judged.customer, resamples=resamples),
        evaluation.with_intervals(unknown.y, unknown.score, unknown.customer, resamples=resamples),
        len(unknown.y),
        evaluation.with_intervals(
            rated.y, rated.anomaly, rated.customer, resamples=min(resamples, _ANOMALY_RESAMPLES)
        ),
        evaluation.card_precision(unknown.time_ms, unknown.customer, unknown.y, unknown.score, cards_a_day),
        cards_a_day,
        float(brier_score_loss(y, judged.score)) if has_both else float("nan"),
        reliability(y, judged.score) if len(y) else None,
        {name: int((scored.decisions == code).sum()) for code, name in enumerate(DECISIONS)},
        evaluation.share_interval(int(y[alerted].sum()), int(alerted.sum())),
        evaluation.share_interval(int(alerted[y].sum()), int(y.sum())),
        _effects(judged) if len(y) else [],
        _segments(judged) if len(y) else [],
        _top_features(blocks),
        _notes(scored, judged, card, cards_a_day, currencies or {}),
    )


def _notes(
    scored: Scored, judged: Scored, card: ModelCard, cards_a_day: int, currencies: Currencies
) -> list[str]:
    notes = []
    if said := mixed(currencies, "values found, segments by amount, and thresholds chosen by cost"):
        notes.append(said)
    if not len(judged.y):
        notes.append("no scored transaction has a label: there is nothing to compare scores with")
    elif judged.y.all() or not judged.y.any():
        kind = "fraud" if judged.y.all() else "genuine"
        notes.append(f"all labelled transactions are {kind}: figures that compare the two are not defined")
    learned_to = card.learned_to_ms
    if learned_to and len(scored.time_ms) and int(scored.time_ms.min()) <= learned_to:
        notes.append(
            f"the model learned from transactions up to {epoch_ms_to_rfc3339(learned_to)}: where those "
            "are among the scored ones, figures flatter it (train with --to, score with --from)"
        )
    days = np.unique(judged.time_ms // DAY_MS)
    if len(days):
        customers = len(np.unique(np.stack([judged.time_ms // DAY_MS, judged.customer]), axis=1).T)
        if customers / len(days) <= cards_a_day:
            notes.append(
                f"card precision@{cards_a_day}: a day has {customers / len(days):.0f} active customers, so "
                "nearly all of them are looked at; --cards-a-day sets another number"
            )
    return notes


def _effects(judged: Scored) -> list[ThresholdEffect]:
    y, score, amount = judged.y, judged.score, judged.traits[:, 0]
    days = max(int(judged.time_ms.max() // DAY_MS - judged.time_ms.min() // DAY_MS) + 1, 1)
    total, value = max(int(y.sum()), 1), max(float(amount[y].sum()), 1e-9)
    effects = []
    for share in _SHARES:
        threshold = float(np.quantile(score, 1.0 - share))
        reached = score >= threshold
        found = y & reached
        worth = float(amount[found].sum())
        effects.append(
            ThresholdEffect(
                threshold,
                float(reached.mean()),
                float(reached.sum()) / days,
                float(found.sum()) / max(int(reached.sum()), 1),
                float(found.sum()) / total,
                worth,
                worth / value,
            )
        )
    return effects


def _segments(judged: Scored) -> list[SegmentFigures]:
    trait = dict(zip(TRAITS, judged.traits.T, strict=True))
    cut = np.quantile(judged.score, 1.0 - evaluation.REVIEW_SHARE)
    edges = np.unique(np.quantile(trait["amount"], (0.25, 0.5, 0.75)))
    bands = [-np.inf, *edges.tolist(), np.inf]
    parts: list[tuple[str, str, Labels]] = [
        ("amount", f"{_edge(low)} to {_edge(high)}", (trait["amount"] > low) & (trait["amount"] <= high))
        for low, high in itertools.pairwise(bands)
    ]
    history = np.nan_to_num(trait["history_span_s"]) / 86_400
    for text, low, high in (("first day", -1, 1), ("1 to 30 days", 1, 30), ("over 30 days", 30, np.inf)):
        parts.append(("customer's history", text, (history >= low) & (history < high)))
    night = trait["hour_of_day"] < 6
    parts += [("time (UTC)", "0 to 6 h", night), ("time (UTC)", "6 to 24 h", ~night)]
    for kind, names, column in (
        ("channel", CHANNELS, "channel_code"),
        ("category", CATEGORIES, "category_code"),
    ):
        parts += [(kind, name, trait[column] == code) for code, name in enumerate(names, start=1)]
    found = []
    for kind, text, rows in parts:
        y, score = judged.y[rows], judged.score[rows]
        if len(y):
            figures = evaluation.Ranking(y, score).figures()
            recall = float((score[y] >= cut).mean()) if y.any() else float("nan")
            alerts = int((judged.decisions[rows] > 0).sum())
            found.append(
                SegmentFigures(kind, text, len(y), int(y.sum()), figures["average_precision"], recall, alerts)
            )
    return found


def _edge(value: float) -> str:
    return "0" if value == -np.inf else "more" if value == np.inf else f"{value:,.2f}"


def _top_features(blocks: Sequence[ScoredRows], most: int = 15) -> list[tuple[str, float]]:
    """Features by mean contribution to the log-odds of alerts, where they are among the reasons."""
    total: defaultdict[str, float] = defaultdict(float)
    alerts = 0
    for block in blocks:
        alerts += len(block.reasons)
        for reasons in block.reasons.values():
            for reason in reasons:
                total[reason["feature"]] += reason["contribution"]
    return [(name, value / alerts) for name, value in Counter(total).most_common(most)]


def _rounded(found: ThresholdEffect | SegmentFigures) -> dict[str, Any]:
    return {
        name: _or_none(value) if isinstance(value, float) else value
        for name, value in ((name, getattr(found, name)) for name in found.__slots__)
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
