"""Messages of a whole chunk: the bytes of `models.messages`, nearly all of which every row shares.

A message of one row becomes a template; only what differs from row to row is filled in. Rows with reasons
are written one by one.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import orjson

from models import messages
from models.churn_scores import ChurnResult
from models.model_set import Models
from models.pipeline import Events, ScoredChunk
from schemas.parse import dump


def fraud_scores(
    events: Events,
    chunk: ScoredChunk,
    models: Models,
    *,
    scored_at: str,
    topic: str,
    partitions: Sequence[int],
    offsets: Sequence[int],
    with_features: bool = False,
) -> list[bytes]:
    """`dump(messages.fraud_score(...))` of each row.

    Args:
        events: The chunk.
        chunk: What became of it.
        models: What it was scored with.
        scored_at: RFC 3339.
        topic: Of the messages that were scored.
        partitions: The same, of each row.
        offsets: The same, of each row.
        with_features: Whether each message shows its vector.
    """

    def message(row: int) -> dict[str, Any]:
        source = {"topic": topic, "partition": partitions[row], "offset": offsets[row]}
        return messages.fraud_score(
            events, chunk, row, models, scored_at=scored_at, source=source, with_features=with_features
        )

    def template(row: int) -> bytes:
        one = message(row)
        source = {**one["source"], "offset": _GAPS[4]}
        names = ("transaction_id", "customer_id", "event_time", "score")
        gaps = dict(zip(names, _GAPS, strict=False)) | {"source": source}
        if "anomaly" in one:
            gaps["anomaly"] = {**one["anomaly"], "score": _GAPS[5]}
        return _template(one | gaps)

    transactions = events.transactions
    if with_features or len(transactions) <= _FEW:
        return [dump(message(row)) for row in range(len(transactions))]
    columns = [
        _texts([t.transaction_id for t in transactions]),
        _texts([t.customer_id for t in transactions]),
        _moments(events.records["time_ms"]),
        _numbers(chunk.fraud.tolist()),
    ]
    if chunk.anomaly is not None and models.anomaly is not None:
        columns.append(_numbers(chunk.anomaly.tolist()))
    columns.append(_numbers(list(offsets)))
    kinds: Sequence[Hashable] = chunk.features.flags.tolist()
    if "fraud" in models.challengers:
        versions = [models.fraud_for(t.customer_id).card.version for t in transactions]
        kinds = list(zip(kinds, versions, strict=True))
    if len(set(partitions)) > 1:
        kinds = list(zip(kinds, partitions, strict=True))
    return _fill(columns, kinds, template, np.flatnonzero(chunk.decisions).tolist(), message)


def churn_scores(
    results: Sequence[ChurnResult], models: Models, *, scored_at: str, trigger: str
) -> list[bytes]:
    """`dump(messages.churn_score(...))` of each result."""

    def message(row: int) -> dict[str, Any]:
        return messages.churn_score(results[row], models, scored_at=scored_at, trigger=trigger)

    def template(row: int) -> bytes:
        names = ("customer_id", "as_of", "churn_probability", "value_at_risk")
        return _template(message(row) | dict(zip(names, _GAPS, strict=False)))

    if len(results) <= _FEW:
        return [dump(message(row)) for row in range(len(results))]
    columns = (
        _texts([r.customer_id for r in results]),
        _moments(np.array([r.as_of_ms for r in results], dtype=np.int64)),
        _numbers([r.proba for r in results]),
        _numbers([round(r.value_at_risk, 2) for r in results]),
    )
    single = [row for row, result in enumerate(results) if result.drivers]
    kinds: Sequence[Hashable] = [r.band for r in results]
    if "churn" in models.challengers:
        kinds = [(r.band, models.churn_for(r.customer_id).card.version) for r in results]
    return _fill(columns, kinds, template, single, message)


# So few are written sooner one by one than a template is made.
_FEW = 2
_GAPS = tuple(f"<gap {number}>" for number in range(6))


def _template(message: dict[str, Any]) -> bytes:
    text = dump(message).replace(b"%", b"%%")
    # In the order of the columns, which is that of the message.
    for gap in _GAPS:
        text = text.replace(dump(gap), b"%b", 1)
    return text


def _fill(
    columns: Sequence[list[bytes]],
    kinds: Sequence[Hashable],
    template: Callable[[int], bytes],
    single: Sequence[int],
    message: Callable[[int], dict[str, Any]],
) -> list[bytes]:
    """Rows of columns in the template of their kind, which one row of that kind gives."""
    alone = frozenset(single)
    example = {kind: row for row, kind in enumerate(kinds) if row not in alone}
    templates = {kind: template(row) for kind, row in example.items()}
    empty = b"%b" * len(columns)
    rows = zip(kinds, zip(*columns, strict=True), strict=True)
    written = [templates.get(kind, empty) % row for kind, row in rows]
    for row in single:
        written[row] = dump(message(row))
    return written


def _texts(values: list[str]) -> list[bytes]:
    written = orjson.dumps(values)[1:-1].split(b",")
    # As many as there are values only where no value holds a comma.
    return written if len(written) == len(values) else [orjson.dumps(value) for value in values]


def _numbers(values: list[float]) -> list[bytes]:
    return orjson.dumps(values)[1:-1].split(b",") if values else []


def _moments(times_ms: Any) -> list[bytes]:
    moments = np.datetime_as_string(times_ms.astype("M8[ms]"), unit="ms", timezone="UTC")
    return [b'"%b"' % moment for moment in moments.astype("S24").tolist()]
