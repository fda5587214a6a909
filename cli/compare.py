"""Two versions of a model on the rows of one file whose outcomes are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from cli.console import out, progress
from cli.durations import days_too
from cli.file_log import check_entities, print_refused, read_log
from cli.trained import load_trained
from features.definitions import DAY_MS
from features.engine import Engine
from infra.cells import moment
from infra.mapping import Mapping
from models.churn import end_of
from models.churn_backtest import every
from models.contest import Contest, Scores, churn_scores, contest, fraud_scores
from models.registry import ModelRegistry
from models.tree import ModelCard, TreeModel
from models.vectors import Rows
from schemas.errors import ConfigError
from schemas.fields import epoch_ms_to_rfc3339, to_epoch_ms

_WEEK_MS: Final = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A log and the days of it on which models are compared.

    Attributes:
        rows: In time order.
        from_ms, until_ms: Transactions of `[from_ms, until_ms)`, of churn weekly cut-offs of
            `[from_ms, until_ms]`.
    """

    rows: Rows
    from_ms: int
    until_ms: int

    def scores(self, model: TreeModel, engine: Engine) -> Scores:
        """What a model gives these days."""
        if model.card.name == "churn":
            return churn_scores(self.rows, model, engine, every(self.from_ms, self.until_ms, _WEEK_MS))
        return fraud_scores(self.rows, model, engine, self.from_ms, self.until_ms)


def known_until(rows: Rows, card: ModelCard, label_delay_ms: int) -> int:
    """Before when outcomes are known: of frauds after their label delay, of churn after its horizon."""
    return end_of(rows) - (card.horizon_days * DAY_MS if card.name == "churn" else label_delay_ms)


def newest_known(rows: Rows, card: ModelCard, label_delay_ms: int, days: int) -> HeldBack:
    """The newest days whose outcomes are known.

    Raises:
        ConfigError: Nothing is left before them.
    """
    until_ms = known_until(rows, card, label_delay_ms)
    from_ms, first_ms = until_ms - days * DAY_MS, int(rows.time_ms[0])
    if from_ms <= first_ms:
        raise ConfigError(
            f"the data is too short: the {days} days that would be held back begin at "
            f"{epoch_ms_to_rfc3339(from_ms)}, and nothing is before them (the first transaction is of "
            f"{epoch_ms_to_rfc3339(first_ms)}): give more history, or hold back fewer days"
        )
    return HeldBack(rows, from_ms, until_ms)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two versions are compared on.

    Attributes:
        from_, to: Moments; `None`: the newest 28 days whose outcomes are known.
        label_delay: A length of time; `None`: what the mapping says.
        features: YAML file of the bank's own declarations.
    """

    data: Path
    mapping: Path
    from_: str | None
    to: str | None
    label_delay: str | None
    features: Path | None
    resamples: int


def compare_on_file(registry: ModelRegistry, cards: Sequence[ModelCard], plan: Comparison) -> Contest:
    """Let two versions score the same rows.

    Raises:
        ConfigError: They foresee other horizons, so they have no outcome in common.
    """
    both = [load_trained(registry, card.name, card.version, plan.features) for card in cards]
    if len({card.horizon_days for card in cards}) > 1:
        horizons = " and ".join(f"{card.version} {card.horizon_days} days" for card in cards)
        raise ConfigError(f"the versions foresee different horizons, so outcomes differ: {horizons}")
    rules = Mapping.load(plan.mapping).with_delay(days_too(plan.label_delay))
    if cards[0].name == "fraud":
        for _, engine in both:
            check_entities(engine, rules)
    with progress() as bar:
        logs = {}
        for _, engine in both:
            if engine.attributes not in logs:
                logs[engine.attributes], account = read_log(plan.data, rules, engine, bar)
        print_refused(account)
        rows = next(iter(logs.values()))
        until_ms = known_until(rows, cards[0], rules.label_delay_ms)
        if plan.to is not None:
            until_ms = min(until_ms, to_epoch_ms(moment(plan.to)))
        from_ms = until_ms - 28 * DAY_MS if plan.from_ is None else to_epoch_ms(moment(plan.from_))
        if from_ms > until_ms:
            raise ConfigError(
                f"{plan.data}: outcomes are known until {epoch_ms_to_rfc3339(until_ms)} only, which is "
                "before --from"
            )
        bar.add_task("scoring by both", total=None)
        one, other = (
            HeldBack(logs[engine.attributes], from_ms, until_ms).scores(model, engine)
            for model, engine in both
        )
    return contest(one.y, one.proba, other.proba, one.customer, resamples=plan.resamples)


def print_contest(found: Contest, first: str, second: str) -> None:
    """Figures of two versions side by side, with their 95 % intervals."""
    if not found.difference:
        return
    table = Table("measure", first, second, "difference")
    for name in found.difference:
        figures = (found.champion[name], found.challenger[name], found.difference[name])
        table.add_row(name, *(f"{f.value:.4f} ({f.low:.4f} to {f.high:.4f})" for f in figures))
    out.print(table)
