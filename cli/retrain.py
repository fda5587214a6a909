"""`tidegate retrain`."""

from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress

from cli.churn import ChurnTraining, train_churn_on_rows
from cli.compare import HeldBack, newest_known, print_contest
from cli.console import err, out, print_json, progress
from cli.durations import days_too
from cli.file_log import check_entities, print_refused, read_log
from cli.options import MODELS, MlflowUri, Models
from cli.trained import load_trained
from cli.training_report import doubts, flaws
from features.definitions import DAY_MS
from features.engine import Engine
from features.lifetime import customer_names
from infra.mapping import Mapping
from infra.model_store import open_registry
from models.contest import Contest, contest
from models.costs import Costs
from models.fraud_data import vectors_of
from models.fraud_training import memory_of, train_fraud
from models.registry import ModelRegistry
from models.relearning import Memory
from models.roles import Roles
from models.tree import ModelCard, TreeModel
from schemas.fields import to_rfc3339


class Which(StrEnum):
    """Models that can be trained again."""

    FRAUD = "fraud"
    CHURN = "churn"


def retrain(
    which: Annotated[Which, typer.Argument(help="The model.")],
    data: Annotated[Path, typer.Option(help="The newest data: CSV or Parquet.")],
    mapping: Annotated[Path, typer.Option(help="YAML file that says which column is what.")],
    models: Models = MODELS,
    mlflow_uri: MlflowUri = "",
    held_back_days: Annotated[
        int, typer.Option(min=1, help="Newest days with known outcomes that the challenger does not see.")
    ] = 28,
    label_delay: Annotated[
        str | None,
        typer.Option(
            help="How long after a transaction its label is known, like 7d. Without it what the mapping "
            "says, which is 7d unless it says otherwise.",
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.001, max=0.999, help="Of customers, for one as good as it can be told.")
    ] = 0.05,
    resamples: Annotated[int, typer.Option(min=20, help="Draws of the bootstrap.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Of training and of the draws.")] = 7,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the champion had."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train a challenger on newer data; promote it only if it is proven better.

    The newest days whose outcomes are known are held back; the challenger learns from what was known before
    them. Both score these days. The challenger becomes the champion if the 95 % confidence interval of the
    difference in average precision (paired bootstrap over customers) is above zero. If zero lies within, it
    is kept as challenger: it scores a share of the customers until it is promoted or retired. If it is worse,
    if nothing can be told, or if it would be of no use, it is saved without a role.
    """
    registry = open_registry(models, mlflow_uri)
    registry.check_writable(which.value)
    # Before hours of training: what it is compared with must be there and fit.
    champion, engine = load_trained(registry, which, features=features)
    rules = Mapping.load(mapping).with_delay(days_too(label_delay))
    if which is Which.FRAUD:
        rules.check_trains_fraud()
        check_entities(engine, rules)
    delay = rules.label_delay_ms
    with progress() as bar:
        rows, account = read_log(data, rules, engine, bar)
        print_refused(account)
        held = newest_known(rows, champion.card, delay, held_back_days)
        if which is Which.FRAUD:
            card, trees, memory = _train_fraud(held, champion.card, engine, delay, seed, data.name, bar)
        else:
            card, trees = _train_churn(held, champion.card, engine, seed, data.name, bar)
            memory = None
        bar.add_task("scoring the held-back days", total=None)
        challenger = TreeModel(card, trees, customer_names(engine))
        found = _contest(held, champion, challenger, engine, resamples, seed)
    said = {"against": champion.card.version, "from_ms": held.from_ms, "to_ms": held.until_ms}
    card = replace(card, metrics={**card.metrics, "held_back": said | found.document()})
    card = registry.save(card, trees, memory)
    refused = _give_role(registry, card, champion.card, found, share)
    _say(card, champion.card, found, registry, json)
    for doubt in doubts(card):
        err.print(f"[yellow]{card.name} {card.version}[/] {doubt}", highlight=False, soft_wrap=True)
    if refused:
        err.print(refused, highlight=False, soft_wrap=True)


def _train_fraud(
    held: HeldBack, champion: ModelCard, engine: Engine, delay: int, seed: int, source: str, bar: Progress
) -> tuple[ModelCard, bytes, Memory | None]:
    task = bar.add_task("replaying history", total=len(held.rows))
    vectors = vectors_of(
        held.rows, engine, to_ms=held.from_ms, on_rows=lambda done: bar.update(task, completed=done)
    )
    trees = bar.add_task("training fraud (trees)", total=None)
    trained = train_fraud(
        vectors,
        engine,
        created_at=to_rfc3339(datetime.now(UTC)),
        label_delay_days=delay / DAY_MS,
        seed=seed,
        source=source,
        # What a review costs has not changed because the model did.
        costs=Costs(**champion.metrics.get("costs", {})),
        on_round=lambda done, total: bar.update(trees, completed=done, total=total),
    )
    return *trained, memory_of(vectors, delay / DAY_MS)


def _train_churn(
    held: HeldBack, champion: ModelCard, engine: Engine, seed: int, source: str, bar: Progress
) -> tuple[ModelCard, bytes]:
    plan = ChurnTraining(source, champion.horizon_days, None, held.from_ms, (), seed)
    return train_churn_on_rows(plan, held.rows, engine, bar)


def _contest(
    held: HeldBack, champion: TreeModel, challenger: TreeModel, engine: Engine, resamples: int, seed: int
) -> Contest:
    one, other = (held.scores(model, engine) for model in (champion, challenger))
    learned_ms = champion.card.learned_to_ms
    if champion.card.name == "churn":
        # It knows what came of its last cut-off.
        learned_ms += champion.card.horizon_days * DAY_MS
    found = contest(one.y, one.proba, other.proba, one.customer, resamples=resamples, seed=seed)
    if learned_ms > held.from_ms:
        also = "the champion learned from some of the held-back days, which is to its advantage"
        found = replace(found, why=f"{found.why}; {also}")
    return found


def _give_role(
    registry: ModelRegistry, card: ModelCard, champion: ModelCard, found: Contest, share: float
) -> str:
    """Give the challenger the role it has earned; returns why it has none, if so."""
    why: list[str] = []

    def change(roles: Roles) -> Roles | None:
        # Training takes long: what it won against may not be in use any more.
        if roles.champion != champion.version:
            why.append(
                f"{roles.champion} was promoted meanwhile, and it was compared with {champion.version}"
            )
        elif found.verdict == "loses":
            why.append(f"it is worse than {champion.version}")
        elif useless := next(flaws(card), ""):
            # By its own days; to win against a champion that is worse still does not mend it.
            why.append(f"it {useless}")
        elif found.verdict == "wins":
            return roles.promoted(card.version)
        elif not found.difference:
            why.append("customers are not to be scored by what nothing can be told of")
        elif roles.challenger:
            why.append(f"{roles.challenger} is the challenger already")
        else:
            return roles.challenged(card.version, share)
        return None

    registry.give_roles(card.name, card.version, change)
    return "".join(
        f"{card.name} {card.version} is saved without a role: {reason}; see tidegate models promote"
        for reason in why
    )


def _say(card: ModelCard, champion: ModelCard, found: Contest, registry: ModelRegistry, json: bool) -> None:
    role = registry.roles(card.name).of(card.version)
    if json:
        print_json(
            {"name": card.name, "version": card.version, "role": role, "champion": champion.version}
            | found.document()
        )
        return
    print_contest(found, champion.version, card.version)
    out.print(
        f"{card.name} {card.version} is {role or 'in no role'}: {escape(found.why)}",
        highlight=False,
        soft_wrap=True,
    )
