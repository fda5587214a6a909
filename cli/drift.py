"""`tidegate drift`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.table import Table

from cli.console import err, out, print_json, progress
from cli.file_log import check_entities, print_refused, read_log
from cli.options import MODELS, MlflowUri, Models
from cli.trained import load_trained
from features.definitions import DAY_MS
from features.engine import Engine
from features.lifetime import customer_names
from infra.cells import moment
from infra.mapping import Mapping
from infra.model_store import open_registry
from infra.scored_rows import read_scored
from models.churn import customers_as_of, end_of, joined, longest_silence
from models.churn_backtest import every
from models.drift import MOVED, STABLE, CalibrationBin, Reference, calibration, full_from, psi
from models.fraud_data import vectors_of
from models.tree import TreeModel
from schemas.errors import ConfigError
from schemas.fields import to_epoch_ms

_SHOWN = 15
_BLOCK = 50_000
_NOT_FULL = (
    "the model learned from the first days of a log too (or is of an earlier version), when windows of 90 "
    "days were not full: counts and sums of long windows seem to grow. Train it on 120 days or more"
)


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
    models: Models = MODELS,
    mlflow_uri: MlflowUri = "",
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as in training."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compare what is scored now with what a model learned from.

    Population stability of features and scores: an index below 0.1 is no change, above 0.25 a change to look
    into, and the exit code is 1. Calibration: how many frauds or leavers the scores promised, how many came.
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
    from_ms = None if from_ is None else to_epoch_ms(moment(from_))
    moved: dict[str, float] = {}
    if data is not None and mapping is not None:
        model, engine = load_trained(registry, name, card.version, features)
        X, proba, y = _replayed(model, engine, data, Mapping.load(mapping), from_ms, reference.full)
        for feature, column in zip(card.feature_names, model.columns.tolist(), strict=True):
            # Nothing is said of those that move by themselves.
            if (bins := reference.features.get(feature)) is not None:
                moved[feature] = psi(bins.shares, bins.count(X[:, column].astype(np.float64)))
    elif scored is not None:
        proba, y = read_scored(scored, from_ms or 0)
    if not len(proba):
        raise ConfigError("there is no row to look at")
    result: dict[str, Any] = {
        "name": name,
        "version": card.version,
        "rows": len(proba),
        "score_psi": psi(reference.score.shares, reference.score.count(proba)),
        "feature_psi": dict(sorted(moved.items(), key=lambda item: -item[1])),
        "calibration": []
        if y is None
        else [asdict(one) for one in calibration(proba[y >= 0], y[y >= 0] == 1)],
    }
    if moved and not reference.full:
        result["note"] = _NOT_FULL
    if json:
        print_json(result)
    else:
        _print(result)
    worst = max([result["score_psi"], *moved.values()])
    if worst > MOVED:
        err.print(f"something moved: an index of {worst:.2f} is above {MOVED}", highlight=False)
        raise typer.Exit(1)


Outcomes = npt.NDArray[np.int8]


def _replayed(
    model: TreeModel, engine: Engine, data: Path, mapping: Mapping, from_ms: int | None, full: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], Outcomes | None]:
    """Rows `(n, n_features)`, their probabilities and outcomes; -1 for one that is not known yet.

    Without `from_ms` those whose windows are not full are left out if the model's reference is `full`.
    """
    if model.card.name == "fraud":
        check_entities(engine, mapping)
    with progress() as bar:
        rows, account = read_log(data, mapping, engine, bar)
        print_refused(account)
        bar.add_task("replaying history", total=None)
        if from_ms is None and full:
            from_ms = full_from(rows.time_ms, int(rows.time_ms[0]))
        if model.card.name == "fraud":
            found = vectors_of(rows, engine, from_ms=from_ms)
            known = np.where(
                found.settled(found.end_ms, mapping.label_delay_ms), found.known_by(found.end_ms), -1
            )
            y = known.astype(np.int8) if mapping.label is not None else None
            return found.X, _probabilities(model, found.X), y
        horizon_ms, end_ms = model.card.horizon_days * DAY_MS, end_of(rows)
        first_ms = int(rows.time_ms[0]) + horizon_ms if from_ms is None else from_ms
        parts = list(
            customers_as_of(
                rows,
                engine,
                every(first_ms, end_ms, 7 * DAY_MS),
                horizon_ms=horizon_ms,
                end_ms=end_ms,
                silent_ms=longest_silence(horizon_ms),
            )
        )
    seen = joined(parts, len(customer_names(engine)))
    return seen.X, _probabilities(model, seen.X), seen.churned


def _probabilities(model: TreeModel, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    blocks = [model.predict_proba(X[i : i + _BLOCK].astype(np.float64)) for i in range(0, len(X), _BLOCK)]
    return np.concatenate([np.empty(0), *blocks])


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
    if "note" in result:
        out.print(result["note"], highlight=False, soft_wrap=True)
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
