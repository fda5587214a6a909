"""How histories lie in Redis or Valkey: all keys of a source partition share one hash tag.

| key | what |
| --- | --- |
| `{tg:3}:meta` | epoch, owner, next offsets, watermark, set of models, format version, `building` |
| `{tg:3}:index` | customers by the time of their newest event |
| `{tg:3}:h:<customer>` | history (`features.codec`): header and newest records |
| `{tg:3}:b:<customer>` | its packed block: appending never touches it, so it has no room to grow |
| `{tg:3}:s:<customer>` | newest fraud scores, compressed |
| `{tg:3}:c:<customer>` | newest churn score, compressed |
| `{tg:3}:p:<customer>` | profile, contact data sealed |
| `{tg:3}:e:<entity>:<hash>` | what this partition adds to a merchant and so on (`features.tile_codec`) |
| `{tg:3}:erased` | digests of erased customers, and until when nothing of them is taken |
| `tg:topology` | number of source partitions |
| `tg:cluster` | Kafka cluster that the offsets belong to |
| `tg:entities` | entities that are counted since the first event |
"""

from collections.abc import Sequence
from typing import Any

from features import tile_codec
from features.ports import Commit, Lease
from infra.score_packing import ScorePacker
from schemas.erasure import erased_name

UNDECIDED = "*"
"""Entities of a store in which nothing is counted yet."""


def entities_mark(names: Sequence[str]) -> str:
    """What the store keeps of the entities that are counted, and of the format they are in."""
    counted = ",".join(sorted(names))
    return f"{counted}@{tile_codec.VERSION}" if counted else ""


def wrong_entities(stored: str, wanted: str) -> str | None:
    """Why a state cannot be gone on with, by the marks of what it counts and of what is to be counted."""
    if stored == wanted:
        return None
    (counted, _, written), (declared, _, readable) = stored.partition("@"), wanted.partition("@")
    if counted == declared:
        return (
            f"what is stored of entities has format {written or '1'}, this program reads {readable}: run "
            "the version that wrote it, or build all state from the log with 'tidegate rebuild'"
        )
    return (
        f"the state counts entities {counted or 'none'!r}, TIDEGATE_ENTITIES says "
        f"{declared or 'none'!r}: set it back, or build all state from the log with 'tidegate rebuild'"
    )


class HistoryLayout:
    """Keys of a namespace, and commits as the functions in the store take them.

    Args:
        namespace: First part of every key.
        recent_scores: Fraud scores kept per customer for lookups.
        packer: Compresses scores.
    """

    def __init__(self, namespace: str, recent_scores: int, packer: ScorePacker) -> None:
        self._namespace = namespace
        self._recent_scores = recent_scores
        self._packer = packer

    def shared_key(self, name: str) -> str:
        """Key of what all partitions share."""
        return f"{self._namespace}:{name}"

    def key(self, partition: int, kind: str, customer_id: str | None = None) -> str:
        """Key of a partition, or of one of its customers."""
        tag = f"{{{self._namespace}:{partition}}}:{kind}"
        return tag if customer_id is None else f"{tag}:{customer_id}"

    def entity_key(self, partition: int, key: tuple[str, int]) -> str:
        """Key of what a partition adds to an entity, by its name and code."""
        return self.key(partition, "e", f"{key[0]}:{key[1]:08x}")

    def call_of(self, lease: Lease, commit: Commit) -> tuple[list[str], list[Any]]:
        """Keys and arguments of the function that applies a commit."""
        p = lease.partition
        history, block, newest, churn, profile = (self.key(p, kind, "") for kind in ("h", "b", "s", "c", "p"))
        appended = [change for change in commit.histories if not change.replaced]
        replaced = [change for change in commit.histories if change.replaced]
        stored_profiles = {c: value for c, value in commit.profiles.items() if value is not None}
        deleted = [profile + c for c, value in commit.profiles.items() if value is None]
        deleted += [kind + c for c in commit.erased for kind in (history, block, newest, churn, profile)]
        lists = {c: scores[-self._recent_scores :] for c, scores in commit.scores.items() if scores}
        rewritten = [entity for entity in commit.entities if entity.replaced]
        extended = [entity for entity in commit.entities if not entity.replaced]
        keys = [self.key(p, "meta"), self.key(p, "index")]
        args: list[Any] = [lease.epoch, lease.owner, commit.source]
        args += ["" if commit.expected_next is None else commit.expected_next, commit.next_offset]
        args += [commit.watermark_ms, commit.swept_day, self._recent_scores, commit.models]
        args += [len(appended), len(replaced), len(commit.histories), len(lists)]
        args += [len(commit.churn) + len(stored_profiles) + len(rewritten), len(extended), len(deleted)]
        args.append(len(commit.erased))
        for change in appended:
            keys.append(history + change.customer_id)
            args += (change.expected_bytes, change.header, change.appended)
        for change in replaced:
            keys += (history + change.customer_id, block + change.customer_id)
            args += (change.expected_bytes, change.header + change.appended, change.packed)
        for change in commit.histories:
            args += (change.last_event_ms, change.customer_id)
        for customer_id, scores in lists.items():
            keys.append(newest + customer_id)
            args += (len(scores), *map(self._packer.pack, scores))
        keys += [churn + c for c in commit.churn]
        args += [self._packer.pack(score) for score in commit.churn.values()]
        keys += [profile + c for c in stored_profiles]
        args += stored_profiles.values()
        for entities in (rewritten, extended):
            keys += [self.entity_key(p, (entity.entity, entity.code)) for entity in entities]
            args += [entity.value for entity in entities]
        keys += deleted
        for customer_id, until_ms in commit.erased.items():
            keys.append(self.key(p, "erased"))
            args += (customer_id, erased_name(customer_id), until_ms)
        return keys, args
