"""`tidegate train`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.durations import days_too, delay_ms, horizon_days_of, search_budget
from cli.file_log import attributes_of, entities_of
from cli.generated import bank_settings
from cli.training import (
    COSTS,
    TrainingPlan,
    Which,
    train_anomaly_on_file,
    train_churn_alone,
    train_fraud_on_file,
    train_on_bank,
    train_on_file,
)
from cli.training_report import print_trained
from infra.cells import moment
from infra.mapping import Mapping
from models.costs import Costs
from schemas.errors import ConfigError
from schemas.fields import to_epoch_ms


def train(
    which: Annotated[Which, typer.Argument(help="The model, or all.")] = Which.ALL,
    models: Annotated[
        Path,
        typer.Option("--models", "--out", envvar="TIDEGATE_MODELS", help="Folder of the model registry."),
    ] = Path(".tidegate/models"),
    data: Annotated[
        Path | None, typer.Option(help="Your own CSV or Parquet instead of a generated bank.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file that says which column is what.")] = None,
    customers: Annotated[int, typer.Option(min=10, help="Customers of the generated bank.")] = 1500,
    days: Annotated[int, typer.Option(min=100, help="Days of generated history.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="Of the generated bank and of training.")] = 11,
    horizon: Annotated[
        str, typer.Option("--horizon", "--horizon-days", help="Silence that counts as churn, in days: 30d.")
    ] = "30d",
    cut_off: Annotated[
        list[str] | None,
        typer.Option(
            help="Learn churn from customers as of this time (UTC); may be given several times. "
            "Without it weekly, the last one horizon before the end. With --data only."
        ),
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            "--label-delay",
            "--label-delay-days",
            help="How long after a transaction its label is known, like 7d: newer ones are not learned from. "
            "Without it what the mapping says, which is 7d unless it says otherwise.",
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Learn from transactions since this time (UTC); earlier ones are history.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Use nothing of this time or later, and no label known later."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Search the fraud model's hyper-parameters: so many trials (20), or for so long (10m). "
            "Without it good defaults.",
        ),
    ] = None,
    review_cost: Annotated[
        float, typer.Option(help="Of an analyst's look at one alert, in the currency of the transactions.")
    ] = COSTS.review,
    refusal_cost: Annotated[
        float, typer.Option(help="Of refusing a good customer's payment, beside that the customer may leave.")
    ] = COSTS.refusal,
    alerts_a_day: Annotated[
        float | None, typer.Option(help="The most alerts a day; without it one transaction in a hundred.")
    ] = None,
    anomaly_alerts: Annotated[
        float,
        typer.Option(
            min=0, max=0.1, help="Share of transactions that are to raise an alert as an anomaly; 0: none."
        ),
    ] = 0.001,
    promote: Annotated[bool, typer.Option(help="Put the new model into use.")] = True,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as the worker has."),
    ] = None,
    entities: Annotated[
        str | None,
        typer.Option(
            envvar="TIDEGATE_ENTITIES",
            help="Entities with features: merchant,device,counterparty or none, as the worker must have it. "
            "Without it those whose ids the mapping reads; of a generated bank none.",
        ),
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option(
            envvar="TIDEGATE_ATTRIBUTES",
            help="What models read of a message besides: balance_before, balance_after, names of "
            "attributes, or none; the worker must have the same. Without it those that the mapping reads.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Train on history, generated or your own, replayed through the engine that serves."""
    if (data is None) != (mapping is None):
        raise ConfigError("--data and --mapping go together: the file, and what its columns mean")
    plan = TrainingPlan(
        models,
        which,
        seed,
        horizon_days_of(horizon),
        promote=promote,
        entities="" if entities in (None, "none") else str(entities),
        attributes="" if attributes in (None, "none") else str(attributes),
        from_ms=None if from_ is None else to_epoch_ms(moment(from_)),
        to_ms=None if to is None else to_epoch_ms(moment(to)),
        budget=search_budget(budget),
        features=features,
        anomaly_alerts=anomaly_alerts,
        costs=Costs(
            review=review_cost,
            refusal=refusal_cost,
            alerts_a_day=alerts_a_day,
            alerts_share=COSTS.alerts_share,
        ),
    )
    if data is not None and mapping is not None:
        rules = Mapping.load(mapping).with_delay(days_too(label_delay))
        if entities is None:
            plan = replace(plan, entities=entities_of(rules))
        if attributes is None:
            plan = replace(plan, attributes=attributes_of(rules))
        if rules.label is not None:
            plan = replace(plan, label_delay_ms=rules.label_delay_ms)
        if cut_off and which is not Which.CHURN:
            raise ConfigError("--cut-off is for training churn")
        if which is Which.CHURN:
            cut_offs = [to_epoch_ms(moment(one)) for one in cut_off or ()]
            cards = train_churn_alone(plan, data, rules, cut_offs)
        else:
            run = {Which.FRAUD: train_fraud_on_file, Which.ANOMALY: train_anomaly_on_file}
            cards = run.get(which, train_on_file)(plan, data, rules)
    else:
        if from_ is not None or to is not None or cut_off:
            raise ConfigError("--from, --to and --cut-off go with --data; a generated bank has --days")
        if label_delay is not None:
            plan = replace(plan, label_delay_ms=delay_ms(label_delay))
        cards = train_on_bank(plan, bank_settings(customers, days, seed))
    print_trained(plan, cards, json=json)
