"""Churn from a file of one's own: `tidegate train churn --data` and `tidegate backtest` of a churn model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from cli.console import err, interval, out, print_json, progress
from cli.file_log import engine_of, read_log
from features.definitions import DAY_MS
from features.engine import Engine
from features.lifetime import customer_names
from infra.mapping import Mapping as FileMapping
from infra.scored_customers import ScoredCustomersFile
from models.churn import (
    MOST_ROWS,
    ChurnRows,
    count_as_of,
    customers_as_of,
    default_cut_offs,
    end_of,
    joined,
    least_history_days,
    longest_silence,
    train_churn,
)
from models.churn_backtest import FIGURES, ChurnReport, backtest_churn, churn_report
from models.currencies import counted
from models.registry import ModelRegistry
from models.tree import ModelCard
from models.vectors import Rows
from schemas.errors import ConfigError
from schemas.fields import epoch_ms_to_rfc3339, to_rfc3339


@dataclass(frozen=True, slots=True)
class ChurnTraining:
    """What a churn model learns from.

    Attributes:
        source: Names the data.
        from_ms, to_ms: The log is `[from_ms, to_ms)`; `None`: from the first, to the last.
        cut_offs: Moments at which customers are looked at; empty: weekly ones.
    """

    source: str
    horizon_days: int
    from_ms: int | None
    to_ms: int | None
    cut_offs: Sequence[int]
    seed: int


def train_churn_on_rows(
    plan: ChurnTraining, rows: Rows, engine: Engine, bar: Progress
) -> tuple[ModelCard, bytes]:
    """Train on a log in time order; raises as `churn_rows_of`."""
    return train_churn_of(plan, churn_rows_of(plan, rows, engine, bar), engine, bar)


def churn_rows_of(plan: ChurnTraining, rows: Rows, engine: Engine, bar: Progress) -> ChurnRows:
    """Customers of a log in time order at the cut-offs, as `customers_as_of` finds them.

    Raises:
        ConfigError: The span is too short for the horizon, or a cut-off lies outside it.
    """
    # Of days behind the file's last nobody knows who was silent.
    end_ms = end_of(rows)
    if plan.to_ms is not None:
        end_ms = min(end_ms, plan.to_ms)
    if not len(_between(rows, plan.from_ms, plan.to_ms)):
        raise ConfigError(f"{plan.source}: no transaction lies between --from and --to")
    rows = _between(rows, None, plan.to_ms)
    horizon_ms = plan.horizon_days * DAY_MS
    first_ms = int(rows.records["time_ms"][0])
    _say_if_late(plan, rows, end_ms, horizon_ms)
    cut_offs = sorted(set(plan.cut_offs)) or [
        moment
        for moment in default_cut_offs(first_ms, end_ms, horizon_ms)
        if moment >= (plan.from_ms or first_ms)
    ]
    if not cut_offs:
        raise ConfigError(
            f"{plan.source}: its transactions span {(end_ms - first_ms) / DAY_MS:.0f} days; with a horizon "
            f"of {plan.horizon_days} days there must be {least_history_days(horizon_ms)} before it to learn "
            "from, behind --from: give a shorter --horizon, or cut-offs of your own (--cut-off)"
        )
    if cut_offs[0] <= first_ms or cut_offs[-1] + horizon_ms > end_ms:
        raise ConfigError(
            f"--cut-off must leave {plan.horizon_days} days before {epoch_ms_to_rfc3339(end_ms)} and "
            f"transactions before it; the first is of {epoch_ms_to_rfc3339(first_ms)}"
        )
    found = count_as_of(rows, cut_offs)
    if found > MOST_ROWS:
        err.print(
            f"learning from {MOST_ROWS:,} of {found:,} customers at cut-offs, drawn at random",
            highlight=False,
        )
    task = bar.add_task("looking at customers (cut-offs)", total=len(cut_offs))
    parts = []
    for part in customers_as_of(
        rows,
        engine,
        cut_offs,
        horizon_ms=horizon_ms,
        end_ms=end_ms,
        share=MOST_ROWS / max(found, 1),
    ):
        parts.append(part)
        bar.update(task, advance=1)
    return replace(joined(parts, len(customer_names(engine))), currencies=counted(rows.records))


def _say_if_late(plan: ChurnTraining, rows: Rows, end_ms: int, horizon_ms: int) -> None:
    """Say where a handful of late transactions make everybody before them a churner."""
    handful = max(1, len(rows) // 1000)
    late_ms = int(rows.records["time_ms"][max(0, len(rows) - 1 - handful)])
    if len(rows) > 100 * handful and end_ms - late_ms > horizon_ms:
        late, end = epoch_ms_to_rfc3339(late_ms), epoch_ms_to_rfc3339(end_ms)
        err.print(
            f"[yellow]{escape(plan.source)}[/]: nearly all transactions are before {late}, and the last ones "
            f"end at {end}: who has none in between counts as gone. Leave wrong dates out (--to)",
            highlight=False,
            soft_wrap=True,
        )


def train_churn_of(
    plan: ChurnTraining, looked_at: ChurnRows, engine: Engine, bar: Progress
) -> tuple[ModelCard, bytes]:
    """Train on what `churn_rows_of` gave."""
    training = bar.add_task("training churn (trees)", total=None)
    return train_churn(
        looked_at,
        engine,
        created_at=to_rfc3339(datetime.now(UTC)),
        horizon_days=plan.horizon_days,
        seed=plan.seed,
        source=plan.source,
        on_round=lambda done, total: bar.update(training, completed=done, total=total),
    )


def _between(rows: Rows, from_ms: int | None, to_ms: int | None) -> Rows:
    times = rows.records["time_ms"]
    begin = 0 if from_ms is None else int(times.searchsorted(from_ms))
    return rows.part(begin, len(times) if to_ms is None else int(times.searchsorted(to_ms)))


def backtest_churn_on_file(
    root: Path,
    card: ModelCard,
    features: Path | None,
    data: Path,
    mapping: FileMapping,
    out_file: Path,
    cut_offs: Sequence[int],
    *,
    resamples: int,
) -> tuple[dict[str, Any], ChurnReport]:
    """Score the customers of a file at each cut-off and write them; what came of it, and how good that was.

    Raises:
        ConfigError: The model and this program do not fit, or no customer was there at any cut-off.
    """
    started = time.monotonic()
    known_ms = int(card.data.get("to_ms", 0)) + card.horizon_days * DAY_MS
    if known_ms > cut_offs[0]:
        first, known = epoch_ms_to_rfc3339(cut_offs[0]), epoch_ms_to_rfc3339(known_ms)
        err.print(
            f"[yellow]{card.name} {card.version}[/] learned from outcomes up to {known}, behind the first "
            f"cut-off {first}: figures may be too good. Train with --to {first}",
            highlight=False,
            soft_wrap=True,
        )
    engine = engine_of(card, features)
    model = ModelRegistry(root).load("churn", customer_names(engine), card.version)
    with progress() as bar:
        rows, account = read_log(data, mapping, engine, bar)
        task = bar.add_task("scoring (cut-offs)", total=len(cut_offs))
        blocks = []
        with ScoredCustomersFile(out_file, f"{card.name} {card.version}") as written:
            for block in backtest_churn(rows, model, engine, cut_offs):
                written.write(block)
                blocks.append(block)
                bar.update(task, advance=1)
            if written.rows == 0:
                first, last = (epoch_ms_to_rfc3339(int(rows.records["time_ms"][i])) for i in (0, -1))
                raise ConfigError(
                    f"{data}: no customer was there before {epoch_ms_to_rfc3339(cut_offs[-1])}; its "
                    f"transactions are from {first} to {last}"
                )
    report = churn_report(blocks, resamples=resamples, currencies=counted(rows.records))
    document = {
        "file": str(data),
        "out": str(out_file),
        "model": {"name": card.name, "version": card.version},
        "horizon_days": card.horizon_days,
        "cut_offs": [epoch_ms_to_rfc3339(moment) for moment in cut_offs],
        "rows": account.rows,
        "refused": account.refused,
        "skipped": account.skipped,
        "scored": written.rows,
        "seconds": round(time.monotonic() - started, 3),
        **report.document(),
    }
    return document, report


def print_churn_report(document: dict[str, Any], report: ChurnReport, *, json: bool) -> None:
    """The report for a person, or for machines."""
    if json:
        print_json(document)
        return
    table = Table("figure", "value", "95 % interval", title="churn backtest of " + escape(document["file"]))
    for name, label in FIGURES:
        if name in report.figures:
            value, low, high = report.figures[name]
            table.add_row(label, f"{value:.4f}", interval(low, high))
    if table.row_count:
        out.print(table)
    else:
        out.print("no figures: no horizon is over, or all customers had the same outcome", highlight=False)
    bins = Table("predicted", "found", "customers", title="calibration")
    for predicted, found, customers in report.bins:
        bins.add_row(f"{predicted:.3f}", f"{found:.3f}", f"{customers:,}")
    if report.bins:
        out.print(bins)
        share = report.top_left / max(report.top_customers, 1)
        out.print(
            f"of the tenth with the highest probability ({report.top_customers:,}) {report.top_left:,} left "
            f"({share:.0%}); of all, {report.left:,} of {report.customers:,}",
            highlight=False,
        )
    if report.untold:
        out.print(
            f"{report.untold:,} scored whose horizon is not over: no label, in no figure", highlight=False
        )
    if report.gone:
        days = longest_silence(document["horizon_days"] * DAY_MS) // DAY_MS
        out.print(
            f"{report.gone:,} were silent for more than {days} days and are in no value at risk"
            + (f": without them ROC AUC {report.present['roc_auc'][0]:.4f}" if report.present else ""),
            highlight=False,
        )
    out.print(f"value at risk at the last cut-off: {report.value_at_risk:,.2f} a year", highlight=False)
    for line in report.notes:
        out.print(line, highlight=False, soft_wrap=True)
    if document["skipped"] or document["refused"]:
        out.print(
            f"of {document['rows']:,} rows {document['skipped']:,} were skipped by the mapping and "
            f"{document['refused']:,} refused",
            highlight=False,
        )
    out.print(
        f"{document['scored']:,} scored and written to {escape(document['out'])} in "
        f"{document['seconds']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
