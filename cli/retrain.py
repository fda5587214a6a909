"""`tidegate retrain`."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cli.console import out, print_json, progress
from cli.replayed import Replayed, held_back, known_until, print_contest, probabilities, replay_file
from features.definitions import DAY_MS
from features.engine import Engine
from features.entities import entity_features
from infra.mapping import Mapping
from infra.model_store import open_registry
from models.contest import Contest, contest
from models.drift import with_reference
from models.registry import ModelRegistry
from models.replay import TrainingData
from models.training import train_churn, train_fraud
from models.tree import ModelCard, TreeModel
from schemas.errors import ConfigError
from schemas.fields import to_rfc3339


class Which(StrEnum):
    """Models that can be trained again."""

    FRAUD = "fraud"
    CHURN = "churn"


@dataclass(frozen=True, slots=True)
class _Plan:
    which: Which
    held_back_days: int
    label_delay_days: int
    horizon_days: int
    seed: int
    resamples: int
    source: str


def retrain(
    which: Annotated[Which, typer.Argument(help="The model.")],
    data: Annotated[Path, typer.Option(help="The newest data: CSV or Parquet.")],
    mapping: Annotated[Path, typer.Option(help="YAML file that says which column is what.")],
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")
    ] = Path(".tidegate/models"),
    mlflow_uri: Annotated[
        str, typer.Option(envvar="TIDEGATE_MLFLOW_URI", help="MLflow in the place of a folder.")
    ] = "",
    held_back_days: Annotated[
        int, typer.Option(min=1, help="Newest days with known outcomes that the challenger does not see.")
    ] = 28,
    label_delay_days: Annotated[int, typer.Option(min=0, help="After which frauds are known.")] = 7,
    share: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="Of customers, for one that does not win.")
    ] = 0.05,
    resamples: Annotated[int, typer.Option(min=20, help="Draws of the bootstrap.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of training and of the draws.")] = 7,
    entities: Annotated[
        str, typer.Option(envvar="TIDEGATE_ENTITIES", help="Entities with features, as the worker has.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train a challenger on newer data and promote it only if it is proven better than the champion.

    The newest days whose outcomes are known are held back; the challenger learns from what was known before
    them. Both score these days. The challenger becomes the champion if the 95 % confidence interval of the
    difference in average precision (paired bootstrap over customers) is above zero. Otherwise it is kept as
    challenger: it scores a share of the customers until it is promoted or retired.
    """
    registry = open_registry(models, mlflow_uri)
    engine = Engine(entities=entity_features(entities))
    # Before hours of training: what it is compared with must be there and fit.
    champion = registry.load(which, engine.names)
    if champion.card.features_hash != engine.hash:
        raise ConfigError(
            f"the champion {which} {champion.card.version} is of other feature declarations than this "
            f"program runs, so there is nothing to compare with: run 'tidegate train {which}'"
        )
    horizon_days = champion.card.horizon_days or 30
    plan = _Plan(which, held_back_days, label_delay_days, horizon_days, seed, resamples, data.name)
    with progress() as bar:
        replayed = replay_file(data, Mapping.load(mapping), engine, horizon_days, bar)
        bar.add_task(f"training {which}", total=None)
        card, trees, found = _challenge(plan, replayed, engine, champion)
    card = registry.save(card, trees)
    _give_role(registry, card, found, share)
    _say(card, champion.card, found, registry, json)


def _challenge(
    plan: _Plan, replayed: Replayed, engine: Engine, champion: TreeModel
) -> tuple[ModelCard, bytes, Contest]:
    created_at = to_rfc3339(datetime.now(UTC))
    data = replayed.data
    until_ms = known_until(data, plan.which, plan.label_delay_days, plan.horizon_days)
    cut = until_ms - plan.held_back_days * DAY_MS
    earlier = _before(data, cut, plan)
    if plan.which is Which.FRAUD:
        learned = earlier.X
        card, trees = train_fraud(
            earlier,
            engine,
            created_at=created_at,
            label_delay_days=plan.label_delay_days,
            seed=plan.seed,
            source=plan.source,
        )
    else:
        learned = earlier.churn_X
        card, trees = train_churn(
            earlier,
            engine,
            created_at=created_at,
            horizon_days=plan.horizon_days,
            seed=plan.seed,
            source=plan.source,
        )
    held = held_back(replayed, plan.which, cut, until_ms)
    challenger = TreeModel(card, trees, engine.names)
    found = contest(
        held.y,
        probabilities(champion, held.X),
        probabilities(challenger, held.X),
        held.customer,
        resamples=plan.resamples,
        seed=plan.seed,
    )
    if int(champion.card.data.get("to_ms", 0)) >= cut:
        also = "the champion learned from some of the held-back days, which is to its advantage"
        found = replace(found, why=f"{found.why}; {also}")
    said = {"against": champion.card.version, "from_ms": cut, "to_ms": until_ms, **asdict(found)}
    card = with_reference(card, trees, learned, engine.names)
    return replace(card, metrics={**card.metrics, "held_back": said}), trees, found


def _before(data: TrainingData, cut: int, plan: _Plan) -> TrainingData:
    """What was known at a moment: rows before it, and outcomes that were known by then."""
    rows, seen = data.time_ms < cut, data.churn_as_of_ms + plan.horizon_days * DAY_MS <= cut
    if not rows.any():
        raise ConfigError(
            f"the data is too short: nothing is before the {plan.held_back_days} days that are held back"
        )
    return replace(
        data,
        X=data.X[rows],
        time_ms=data.time_ms[rows],
        transaction_ids=[data.transaction_ids[row] for row in np.flatnonzero(rows).tolist()],
        churn_X=data.churn_X[seen],
        churn_as_of_ms=data.churn_as_of_ms[seen],
        churned=data.churned[seen],
        churn_customers=[data.churn_customers[row] for row in np.flatnonzero(seen).tolist()],
        end_ms=cut,
    )


def _give_role(registry: ModelRegistry, card: ModelCard, found: Contest, share: float) -> None:
    if found.verdict == "wins":
        registry.promote(card.name, card.version)
    else:
        registry.challenge(card.name, card.version, share)


def _say(card: ModelCard, champion: ModelCard, found: Contest, registry: ModelRegistry, json: bool) -> None:
    role = registry.roles(card.name).of(card.version)
    if json:
        print_json(
            {"name": card.name, "version": card.version, "role": role, "champion": champion.version}
            | asdict(found)
        )
        return
    print_contest(found, champion.version, card.version)
    out.print(f"{card.name} {card.version} is {role}: {found.why}", highlight=False, soft_wrap=True)
