"""What a worker in memory wrote, verified as `tidegate verify` does it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from models.differences import Tally
from models.model_set import Models
from models.published_scores import Published, read_score
from models.verification import PartitionRebuild
from schemas.topics import FRAUD_SCORES, LABELS, TRANSACTIONS
from tests.streaming import Stream

T, L = TRANSACTIONS.name, LABELS.name


def verified(
    stream: Stream,
    models: Models,
    *,
    change: Callable[[Published], Published | None] = lambda score: score,
    scored_from: int = 0,
    complete: bool = True,
    size: int = 13,
    erased: Mapping[str, int] = MappingProxyType({}),
    belongs_here: Callable[[str], bool] = lambda customer: True,
) -> tuple[Tally, PartitionRebuild]:
    tally = Tally()
    known: dict[str, Any] = {models.fraud.card.version: models.fraud}
    unusual = {models.anomaly.card.version: models.anomaly} if models.anomaly else {}
    rebuild = PartitionRebuild(
        0,
        models.engine,
        known.get,
        belongs_here,
        log_complete=complete,
        tally=tally,
        refused_labels={m["source"]["offset"] for m in stream.dead if m["source"]["topic"] == L},
        anomaly_of=unusual.get,
        erased=erased,
    )
    rebuild.add_labels([r for r in stream.kafka.logs[L, 0] if r is not None])
    scores: dict[int, list[Published]] = {}
    for record in stream.kafka.logs[FRAUD_SCORES.name, 0]:
        assert record is not None
        score = read_score(record.value, T, 0)
        assert score is not None
        if (changed := change(score)) is not None:
            scores.setdefault(score.offset, []).append(changed)
    log = [r for r in stream.kafka.logs[T, 0] if r is not None]
    for start in range(0, len(log), size):
        chunk = log[start : start + size]
        mine = {r.offset: scores[r.offset] for r in chunk if r.offset in scores}
        rebuild.add_transactions(chunk, mine, scored_from=scored_from)
    # As far as the worker has them: `tidegate verify` may be asked in a backlog.
    rebuild.put_labels(stream.store.next_offset(L))
    return tally, rebuild


async def histories(stream: Stream, rebuild: PartitionRebuild, **stored: bytes) -> None:
    for customer_id in rebuild.customers():
        state = await stream.store.read(customer_id)
        assert state is not None
        history = stored.get(customer_id.replace("-", "_"), state.history)
        rebuild.compare_history(customer_id, history, state.churn)
