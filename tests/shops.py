"""What happens at a merchant, one transaction after the other."""

import numpy as np

from features.corrections import Correction
from features.entities import TILE_MS
from features.entity_counts import Entities, SaidOf, customer_hashes
from features.entity_features import ENTITY_FEATURES
from features.labels import Word
from features.record import RECORD

HOUR = TILE_MS
DAY = 24 * HOUR
T0 = 1_767_225_600_000


class Shop:
    """Entities that are asked by time, one transaction after the other."""

    def __init__(self, max_tiles=1 << 62):
        self.entities = Entities(ENTITY_FEATURES, max_tiles)

    def at(self, ms, *, merchant=1, device=0, counterparty=0, customer="c-1", count=True, minor=0):
        record = record_at(ms, merchant, device, counterparty)
        record["amount_minor"] = minor
        for key in self.entities.missing(self.entities.keys(record)):
            self.entities.put(key)
        (row,) = self.entities.compute(record, customer_hashes([customer]), np.arange(1), count=count)
        return dict(zip((f.name for f in ENTITY_FEATURES), row.tolist(), strict=True))

    def correct(self, replaced, words, ms, *, merchant=1, minor=0):
        record = record_at(ms, merchant)
        record["amount_minor"] = minor
        for key in self.entities.missing(self.entities.keys(record)):
            self.entities.put(key)
        corrections = [Correction(0, replaced, words)]
        who = customer_hashes(["c-1"])
        self.entities.compute(record, who, np.arange(1), count=True, corrections=corrections)

    def fraud(self, ms, known_ms, count=1, **ids):
        said = SaidOf(record_at(ms, **ids), Word(known_ms, count))
        self.entities.add(self.entities.frauds([said]))


def record_at(ms, merchant=1, device=0, counterparty=0):
    record = np.zeros(1, dtype=RECORD)
    record["time_ms"], record["merchant"], record["device"] = T0 + ms, merchant, device
    record["counterparty"] = counterparty
    return record
