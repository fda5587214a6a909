"""`tidegate backtest`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from cli.churn import backtest_churn_on_file, print_churn_report
from cli.console import err, interval, out, print_json, progress
from cli.durations import days_too, delay_ms
from cli.file_log import check_entities, engine_of, print_refused, read_log
from infra.ahead import one_ahead
from infra.cells import moment
from infra.mapping import Mapping
from infra.scored_file import ScoredFile
from models.backtest import ScoredRows, backtest_fraud, victims, window
from models.backtest_report import FraudReport, fraud_report
from models.churn_backtest import ChurnReport, every
from models.currencies import counted
from models.label_learning import base_version
from models.online_scorer import OnlineScorer
from models.registry import ModelRegistry, find_model
from models.tree import ModelCard
from schemas.errors import ConfigError
from schemas.fields import epoch_ms_to_rfc3339, to_epoch_ms


@dataclass(frozen=True, slots=True)
class BacktestPlan:
    """What is scored, by what, and where it goes.

    Attributes:
        root: Folder of the registry.
        card: Of the model.
        features: YAML file of the bank's own declarations, as training had.
        from_ms, to_ms: Score `[from_ms, to_ms)`; `None`: from the first, to the last.
    """

    root: Path
    card: ModelCard
    features: Path | None
    online: bool
    data: Path
    mapping: Mapping
    from_ms: int | None
    to_ms: int | None
    out_file: Path
    html: Path | None
    json: bool
    resamples: int
    cards_a_day: int
    every_ms: int
    cut_offs: list[int]
    victims_since_ms: int | None


def backtest(
    model: Annotated[Path, typer.Option(help="Folder of a model, or of a registry with one in use.")],
    data: Annotated[Path, typer.Option(help="A .csv, .csv.gz or .parquet file of transactions.")],
    mapping: Annotated[Path, typer.Option(help="YAML file that says which column is what.")],
    out_file: Annotated[Path, typer.Option("--out", help="The Parquet file to write; replaced at the end.")],
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Score transactions since this time (UTC); earlier ones are history."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Score up to this time; later ones are unread.")
    ] = None,
    label_delay: Annotated[
        str | None,
        typer.Option(
            help="When a label without a time of its own becomes known after its event, like 7d. "
            "Without it what the mapping says, which is 7d unless it says otherwise.",
        ),
    ] = None,
    every_: Annotated[
        str, typer.Option("--every", help="Of churn: score customers this often from --from on.")
    ] = "7d",
    cut_off: Annotated[
        list[str] | None,
        typer.Option(help="Of churn: score customers as of this time instead; may be given several times."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Which model, where the folder has several: fraud or churn.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots to this file.")] = None,
    resamples: Annotated[
        int, typer.Option(min=0, help="Bootstrap samples for confidence intervals; 0: none.")
    ] = 200,
    features: Annotated[
        Path | None,
        typer.Option(envvar="TIDEGATE_FEATURES", help="YAML file of your own features, as training had."),
    ] = None,
    cards_a_day: Annotated[
        int, typer.Option(min=1, help="Customers looked at a day: card precision@k.")
    ] = 100,
    victims_since: Annotated[
        str | None,
        typer.Option(
            help="Customers whose fraud became known before this time stay in the figures without known "
            "victims; without it nobody stays whose fraud the file has."
        ),
    ] = None,
    online: Annotated[
        bool,
        typer.Option(help="Of fraud: let the model go on learning from each label when it becomes known."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Score a past log as if the model had been there, and compare with what became of it.

    The file may be in any order: it is read as a log in time order. Each score sees what was known at its
    moment: earlier transactions, and labels from when they became known. What the model learned from is
    not checked: let it be trained with --to at or before --from.
    """
    rules = Mapping.load(mapping)
    rules = rules.with_delay(days_too(label_delay)) if rules.label is not None else rules
    root, card = find_model(model, name)
    plan = BacktestPlan(
        root,
        card,
        features,
        online,
        data,
        rules,
        None if from_ is None else to_epoch_ms(moment(from_)),
        None if to is None else to_epoch_ms(moment(to)),
        out_file,
        html,
        json,
        resamples,
        cards_a_day,
        _step(every_),
        [to_epoch_ms(moment(one)) for one in cut_off or ()],
        None if victims_since is None else to_epoch_ms(moment(victims_since)),
    )
    if data.exists() and out_file.exists() and out_file.samefile(data):
        raise ConfigError(f"{out_file}: is the file to read; write to another one")
    if card.name == "churn" and online:
        raise ConfigError(
            "--online is for fraud: what a churn model learns needs a whole horizon to be known"
        )
    if plan.from_ms is not None and plan.to_ms is not None and plan.from_ms > plan.to_ms:
        raise ConfigError("--from must be before --to")
    _RUNS[card.name](plan)


def _run_fraud(plan: BacktestPlan) -> None:
    started = time.monotonic()
    engine = engine_of(plan.card, plan.features)
    check_entities(engine, plan.mapping)
    registry = ModelRegistry(plan.root)
    model = registry.load("fraud", engine.names, plan.card.version)
    learning = None
    if plan.online:
        # What labels have taught is kept without it.
        memory = registry.memory(registry.card("fraud", base_version(model.card)))
        if memory is None:
            err.print("its trees stay as they are: nothing of what they were trained on was kept")
        learning = OnlineScorer(model, plan.mapping.label_delay_ms, memory)
    with progress() as bar:
        rows, account = read_log(plan.data, plan.mapping, engine, bar, exact=True)
        start, begin, end = window(rows, engine, plan.from_ms, plan.to_ms)
        if begin == end:
            first, last = (epoch_ms_to_rfc3339(int(rows.time_ms[i])) for i in (0, -1))
            raise ConfigError(
                f"{plan.data}: no transaction lies between --from and --to; the file's are from {first} "
                f"to {last}"
            )
        task = bar.add_task("scoring", total=end - start)
        blocks: list[ScoredRows] = []
        with ScoredFile(plan.out_file, f"{plan.card.name} {plan.card.version}") as written:
            scored = backtest_fraud(
                rows,
                model,
                engine,
                from_ms=plan.from_ms,
                to_ms=plan.to_ms,
                online=learning,
                ahead=one_ahead,
            )
            for block in scored:
                written.write(block)
                blocks.append(block)
                bar.update(task, advance=len(block))
    seconds = time.monotonic() - started
    report = fraud_report(
        blocks,
        plan.card,
        victims(rows, plan.victims_since_ms),
        resamples=plan.resamples,
        cards_a_day=plan.cards_a_day,
        currencies=counted(rows.records[begin:end]),
    )
    document = {
        "file": str(plan.data),
        "out": str(plan.out_file),
        "model": {"name": plan.card.name, "version": plan.card.version},
        "rows": account.rows,
        "refused": account.refused,
        "scored": written.rows,
        "duplicates": end - begin - written.rows,
        "seconds": round(seconds, 3),
        "transactions_per_second": round((end - start) / seconds),
        **report.document(),
    }
    if learning is not None:
        document["online"] = {
            "frauds": learning.frauds,
            "share": round(learning.learning.share, 4),
            "trees_grown": learning.learning.grown,
        }
    if plan.json:
        print_json(document)
    else:
        print_refused(account)
        _print(document, report)
        if learning is not None:
            grown = learning.learning.grown
            again = f"; trees were grown anew {grown} times" if grown else ""
            out.print(
                f"learned from {learning.frauds:,} reported frauds on the way; what was learned counts "
                f"{learning.learning.share:.0%} at the end{again}",
                highlight=False,
            )
    _write_html(plan.html, document, report)


def _print(document: dict[str, Any], report: FraudReport) -> None:
    table = Table("figure", "value", "95 % interval", title="backtest of " + escape(document["file"]))
    for label, figure in report.figures():
        if np.isnan(figure.value):
            table.add_row(label, "not defined", "")
        else:
            table.add_row(label, f"{figure.value:.4f}", interval(figure.low, figure.high))
    out.print(table)
    for line in report.notes:
        out.print(line, highlight=False, soft_wrap=True)
    out.print(
        f"{document['scored']:,} scored and written to {escape(document['out'])} "
        f"in {document['seconds']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )


def _step(text: str) -> int:
    step = delay_ms(text, "--every")
    if step <= 0:
        raise ConfigError(f"--every is more than no time, not {text}")
    return step


def _run_churn(plan: BacktestPlan) -> None:
    if plan.from_ms is None and not plan.cut_offs:
        raise ConfigError("a churn backtest needs --from: the first moment at which customers are scored")
    start = plan.from_ms or 0
    end = start if plan.to_ms is None else plan.to_ms
    document, report = backtest_churn_on_file(
        plan.root,
        plan.card,
        plan.features,
        plan.data,
        plan.mapping,
        plan.out_file,
        sorted(set(plan.cut_offs)) or every(start, end, plan.every_ms),
        resamples=plan.resamples,
    )
    print_churn_report(document, report, json=plan.json)
    _write_html(plan.html, document, report)


def _write_html(path: Path | None, document: dict[str, Any], report: FraudReport | ChurnReport) -> None:
    if path is None:
        return
    from harness.backtest_html import write_html

    write_html(path, document, report)
    err.print(f"report written to {path}", highlight=False)


_RUNS: Final[dict[str, Callable[[BacktestPlan], None]]] = {"fraud": _run_fraud, "churn": _run_churn}
"""By the name on the card."""
