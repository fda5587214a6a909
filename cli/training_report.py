"""What is said of models that were trained: figures, segments, doubts."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from cli.console import err, out, print_json
from cli.training import TrainingPlan, Which
from models.anomaly import ANOMALY
from models.registry import NAMES, SEGMENTS
from models.segments import MEANINGS
from models.tree import ModelCard


def print_trained(plan: TrainingPlan, cards: Sequence[ModelCard], *, json: bool) -> None:
    """What was trained by a plan, for a person or for machines."""
    if json:
        print_json(
            [{"name": c.name, "version": c.version, "metrics": c.metrics, "data": c.data} for c in cards]
        )
        return
    table = Table(
        "model",
        "version",
        "measured on",
        "positives",
        "average precision",
        "ROC AUC",
        title=cards[0].data["source"],
    )
    for c in cards:
        m = c.metrics
        if c.name in NAMES:
            table.add_row(
                c.name,
                c.version,
                *(str(m.get(name, "-")) for name in ("rows", "positives")),
                *(f"{m[name]:.3f}" if name in m else "-" for name in ("average_precision", "roc_auc")),
            )
    if table.row_count:
        out.print(table)
    for c in cards:
        if c.name == SEGMENTS:
            out.print(segment_table(c))
        if c.name == ANOMALY:
            out.print(
                f"anomaly {c.version} of {c.data['rows']:,} transactions: "
                f"{c.metrics['alert_share']:.2%} of them would raise an alert",
                highlight=False,
            )
        # Without days of their own they would be of the days that were learned.
        if c.name == Which.FRAUD and "roc_auc" in c.metrics:
            out.print(decisions(c), highlight=False, soft_wrap=True)
    in_use = " and put into use" if plan.promote else ""
    err.print(f"saved under {plan.models}{in_use}; figures are of held-back days")
    if any(c.name == Which.CHURN for c in cards):
        err.print(
            "of churn: of customers held out at the same cut-offs; 'tidegate backtest' looks at later ones"
        )
    for c in cards:
        for doubt in doubts(c):
            err.print(f"[yellow]{c.name} {c.version}[/] {doubt}", highlight=False, soft_wrap=True)
    for name, chosen in (("ENTITIES", plan.entities), ("ATTRIBUTES", plan.attributes)):
        if chosen:
            err.print(f"run worker and API with TIDEGATE_{name}={chosen}", highlight=False, soft_wrap=True)


def decisions(card: ModelCard) -> str:
    """What a fraud model's thresholds would have done.

    >>> effect = {"review": 0.1, "block": 0.4, "alerts_a_day": 20.0, "refusals_a_day": 12.0}
    >>> effect |= {"good_refusals_a_day": 9.0, "cost_without": 1000.0, "cost": 400.0}
    >>> metrics = {"decisions": effect, "costs": {"review": 5.0, "refusal": 10.0}}
    >>> card = ModelCard("fraud", "v1", "", "", (), 1.0, 0.0, {}, {}, metrics)
    >>> for line in decisions(card).split("; "):
    ...     print(line)
    fraud v1 reviews from 0.1 and refuses from 0.4: 20.0 alerts a day, 12.0 refusals, 9.0 of good customers
    cost a day 400 instead of 1,000 (--review-cost 5, --refusal-cost 10)
    >>> effect |= {"block": 0.9983, "unbounded_alerts_a_day": 61.0, "unbounded_cost": 90.0}
    >>> for line in decisions(card).split("; "):
    ...     print(line)
    fraud v1 reviews from 0.1 and refuses from 0.9983: 20.0 alerts a day, 12.0 refusals, 9.0 of good customers
    cost a day 400 instead of 1,000 (--review-cost 5, --refusal-cost 10)
    with 61.0 alerts a day it would be 90: alerts are bounded (--alerts-a-day)
    """
    e, costs = card.metrics["decisions"], card.metrics["costs"]
    return (
        f"fraud {card.version} reviews from {_score(e['review'])} and refuses from {_score(e['block'])}: "
        f"{e['alerts_a_day']:,.1f} alerts a day, {e['refusals_a_day']:,.1f} refusals, "
        f"{e['good_refusals_a_day']:,.1f} of good customers; "
        f"cost a day {e['cost']:,.0f} instead of {e['cost_without']:,.0f} "
        f"(--review-cost {costs['review']:g}, --refusal-cost {costs['refusal']:g}){_bound(e)}"
    )


def _score(threshold: float) -> str:
    # Two digits would make 1 of 0.998, which no score reaches.
    return f"{threshold:.2g}" if threshold < 0.95 else f"{threshold:.6g}"


def _bound(effect: Mapping[str, float]) -> str:
    """What the bound on alerts costs, where it is in the way; cards of before do not know it."""
    unbounded, cost = (effect.get(name, 0.0) for name in ("unbounded_alerts_a_day", "unbounded_cost"))
    if unbounded <= effect["alerts_a_day"] or cost >= effect["cost"]:
        return ""
    return (
        f"; with {unbounded:,.1f} alerts a day it would be {cost:,.0f}: alerts are bounded (--alerts-a-day)"
    )


def doubts(card: ModelCard) -> Iterator[str]:
    """Why a model may be of no use: sentences that go on from its name.

    >>> from dataclasses import replace
    >>> card = ModelCard("fraud", "v1", "", "", (), 1.0, 0.0, {}, {}, {"roc_auc": 0.52, "positives": 100})
    >>> list(doubts(card))
    ['was no better than chance on held-back days (ROC AUC 0.520 of 100 positives)']
    >>> list(doubts(replace(card, metrics={"roc_auc": 0.62, "positives": 100})))
    []
    """
    if card.name in NAMES and card.metrics.get("roc_auc") is None:
        why = card.metrics.get("note") or "too few outcomes on held-back days"
        yield f"was not measured: {why}. Look at a backtest before it is used"
    if mixed := card.metrics.get("currencies"):
        yield f"mixes what it learned from: {mixed}"
    yield from flaws(card)


def flaws(card: ModelCard) -> Iterator[str]:
    """Why nobody is to be scored by a model: sentences that go on from its name.

    >>> effect = {"alerts_a_day": 0.0}
    >>> list(flaws(ModelCard("fraud", "v1", "", "", (), 1.0, 0.0, {}, {}, {"decisions": effect})))
    ['alerts on nothing: at these costs no review pays, or no alerts are allowed']
    """
    if card.name not in NAMES:
        return
    auc, positives = card.metrics.get("roc_auc"), card.metrics.get("positives", 0)
    # Twice the largest standard error that an area can have (Birnbaum and Klose 1957): 1 / (2 sqrt(n)).
    if auc is not None and auc <= 0.5 + 1.0 / max(positives, 1) ** 0.5:
        yield f"was no better than chance on held-back days (ROC AUC {auc:.3f} of {positives:,} positives)"
    if card.metrics.get("decisions", {}).get("alerts_a_day") == 0:
        yield "alerts on nothing: at these costs no review pays, or no alerts are allowed"


def segment_table(card: ModelCard) -> Table:
    """Segments, their shares, and how well they are apart."""
    m = card.metrics
    title = (
        f"segments {card.version} of {m['customers']:,} customers: silhouette {m['silhouette']:.2f}, "
        f"stability {m['stability_ari_mean']:.2f} (adjusted Rand index, 5 % quantile "
        f"{m['stability_ari_p05']:.2f} of {m['resamples']} resamples)"
    )
    table = Table("segment", "share", "meaning", title=title)
    for name, share in sorted(m["shares"].items(), key=lambda item: -item[1]):
        table.add_row(name, f"{share:.1%}", MEANINGS[name])
    return table
