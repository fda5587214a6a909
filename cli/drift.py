"""`tidegate drift`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.replayed import probabilities, replay_file
from features.engine import Engine
from features.entities import entity_features
from infra.cells import moment
from infra.mapping import Mapping
from infra.model_store import open_registry
from infra.scored_rows import read_scored
from models.drift import MOVED, STABLE, CalibrationBin, Reference, calibration, psi
from models.tree import TreeModel
from schemas.errors import ConfigError
from schemas.fields import to_epoch_ms

_SHOWN = 15


def drift(
    name: Annotated[str, typer.Argument(help="The model: fraud or churn.")] = "fraud",
    version: Annotated[str, typer.Option(help="v1, v2, ...; the champion if left out.")] = "",
    data: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of transactions: features, scores and calibration.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file that says which column is what.")] = None,
    scored: Annotated[
        Path | None,
        typer.Option(help="Parquet of scores, or a folder of it: a backtest's or the sink's."),
    ] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Look at rows since this time (UTC).")] = None,
    models: Annotated[
        Path, typer.Option(envvar="TIDEGATE_MODELS", help="Folder of the model registry.")
    ] = Path(".tidegate/models"),
    mlflow_uri: Annotated[
        str, typer.Option(envvar="TIDEGATE_MLFLOW_URI", help="MLflow in the place of a folder.")
    ] = "",
    entities: Annotated[
        str, typer.Option(envvar="TIDEGATE_ENTITIES", help="Entities with features, as the worker has.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare what is scored now with what a model learned from: population stability and calibration.

    An index below 0.1 is no change, above 0.25 a change to look into. Exit code 1 where one is above 0.25.
    """
    if name not in ("fraud", "churn"):
        raise ConfigError(f"{name!r}: the model is fraud or churn")
    if (data is None) == (scored is None) or (data is None) != (mapping is None):
        raise ConfigError("give either --data with --mapping, or --scored")
    registry = open_registry(models, mlflow_uri)
    card = registry.card(name, version or registry.champion(name))
    reference = Reference(card)
    if reference.score is None:
        raise ConfigError(
            f"{name} {card.version} does not know what it learned from, it is of an earlier version: train "
            "another one"
        )
    from_ms = 0 if from_ is None else to_epoch_ms(moment(from_))
    features: dict[str, float] = {}
    if data is not None and mapping is not None:
        engine = Engine(entities=entity_features(entities))
        model = registry.load(name, engine.names, card.version)
        X, proba, y = _replayed(model, data, Mapping.load(mapping), engine, from_ms)
        for feature, column in zip(card.feature_names, model.columns.tolist(), strict=True):
            bins = reference.features[feature]
            features[feature] = psi(bins.shares, bins.count(X[:, column].astype(np.float64)))
    elif scored is not None:
        proba, y = read_scored(scored, from_ms)
    if not len(proba):
        raise ConfigError("there is no row to look at")
    result: dict[str, Any] = {
        "name": name,
        "version": card.version,
        "rows": len(proba),
        "score_psi": psi(reference.score.shares, reference.score.count(proba)),
        "feature_psi": dict(sorted(features.items(), key=lambda item: -item[1])),
        "calibration": [] if y is None else [asdict(one) for one in calibration(proba, y)],
    }
    if json:
        print_json(result)
    else:
        _print(result)
    worst = max([result["score_psi"], *features.values()])
    if worst > MOVED:
        err.print(f"something moved: an index of {worst:.2f} is above {MOVED}", highlight=False)
        raise typer.Exit(1)


def _replayed(
    model: TreeModel, data: Path, mapping: Mapping, engine: Engine, from_ms: int
) -> tuple[Any, Any, Any]:
    with progress() as bar:
        found = replay_file(data, mapping, engine, model.card.horizon_days or 30, bar).data
    if model.card.name == "churn":
        rows = np.flatnonzero(found.churn_as_of_ms >= from_ms)
        X, y = found.churn_X[rows], found.churned[rows]
        return X, probabilities(model, X), y
    rows = np.flatnonzero(found.time_ms >= from_ms)
    X = found.X[rows]
    known = [found.transaction_ids[row] in found.fraud_known_ms for row in rows.tolist()]
    return X, probabilities(model, X), np.array(known, dtype=np.bool_) if mapping.label is not None else None


def _print(result: dict[str, Any]) -> None:
    out.print(
        f"{result['name']} {result['version']}, {result['rows']:,} rows: scores {_said(result['score_psi'])}",
        highlight=False,
    )
    if result["feature_psi"]:
        table = Table("feature", "stability index", "")
        for feature, value in list(result["feature_psi"].items())[:_SHOWN]:
            table.add_row(feature, f"{value:.3f}", _word(value))
        out.print(table)
    if result["calibration"]:
        table = Table("score", "rows", "expected", "came")
        for one in result["calibration"]:
            found = CalibrationBin(**one)
            table.add_row(
                f"{found.low:g} to {found.high:g}",
                f"{found.rows:,}",
                f"{found.expected:,.1f}",
                f"{found.observed:,}",
            )
        out.print(table)


def _said(value: float) -> str:
    return f"{_word(value)} ({value:.3f})"


def _word(value: float) -> str:
    return "stable" if value < STABLE else "moved" if value > MOVED else "slightly moved"
