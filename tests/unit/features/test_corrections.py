import numpy as np

from features.arena import HistoryArena
from features.codec import History
from features.corrections import corrections_of
from features.labels import put_labels
from features.record import LABEL_CODES, LABEL_KIND, RECORD

DAY = 86_400_000
T0 = 1_767_225_600_000


def event(transaction, day, revision=0, merchant=1):
    record = np.zeros(1, dtype=RECORD)
    record["transaction"], record["time_ms"] = transaction, T0 + int(day * DAY)
    record["revision"], record["merchant"], record["amount_minor"] = revision, merchant, 100 + revision
    return record


class Customer:
    def __init__(self, engine):
        self.engine, self.arena = engine, HistoryArena()
        self.slot = np.array([self.arena.put("c-1", History.empty())])

    def take(self, *events):
        slots = np.repeat(self.slot, len(events))
        features = self.engine.compute_chunk(self.arena, np.concatenate(events), slots)
        found = corrections_of(features, self.arena, slots)
        return [(c.row, int(c.replaced["merchant"][0]), c.words) for c in found]

    def told(self, transaction, day, code="fraud"):
        label = np.zeros(1, dtype=RECORD)
        label["kind"], label["label"] = LABEL_KIND, LABEL_CODES[code]
        label["transaction"], label["time_ms"] = transaction, T0 + int(day * DAY)
        put_labels(self.arena, self.slot, label)


def test_a_correction_replaces_the_version_that_counted(engine):
    customer = Customer(engine)
    assert customer.take(event(1, 0, merchant=7), event(2, 1, merchant=8)) == []
    assert customer.take(event(3, 2), event(2, 2, 1, merchant=9)) == [(1, 8, ())]
    assert customer.take(event(2, 3, 2)) == [(0, 9, ())]


def test_what_is_corrected_in_its_own_chunk_is_replaced_there_each_version_once(engine):
    chunk = [event(1, n / 10, n, merchant=n + 1) for n in range(3)]
    assert Customer(engine).take(*chunk) == [(1, 1, ()), (2, 2, ())]


def test_a_duplicate_and_an_older_revision_replace_nothing(engine):
    customer = Customer(engine)
    customer.take(event(1, 0), event(1, 0, 2))
    assert customer.take(event(1, 1, 1), event(1, 1, 2)) == []


def test_what_was_said_of_it_goes_with_it(engine):
    customer = Customer(engine)
    customer.take(event(1, 0), event(2, 0))
    customer.told(1, 3.5)
    customer.told(2, 3.5, "genuine")
    customer.told(1, 3.6, "genuine")
    told = ((T0 + int(3.5 * DAY), 1), (T0 + int(3.6 * DAY), -1))
    assert customer.take(event(1, 4, 1), event(2, 4, 1)) == [(0, 1, told), (1, 1, ())]


def test_what_was_moved_beyond_what_is_kept_takes_nothing_out(engine):
    """The note of it that is left says neither when it was nor at which merchant."""
    customer = Customer(engine)
    customer.take(event(1, 200))
    customer.take(event(1, 0, 1, merchant=5))
    assert customer.take(event(1, 200, 2)) == []
