import numpy as np
import pytest

from features import tile_kernels
from features.entity_counts import Entities, said_by
from features.entity_features import ENTITY_FEATURES
from features.labels import Word
from features.record import LABEL_CODES, LABEL_KIND, RECORD
from features.tile_codec import TILE
from tests.shops import DAY, HOUR, T0, Shop, record_at


@pytest.mark.parametrize("known", [False, True])
def test_correction_takes_what_it_replaces_out_of_its_merchant_with_its_fraud(known):
    shop, asked = Shop(), 9 * DAY
    words = (Word(T0 + 2 * HOUR, 1),) if known else ()
    shop.at(0, merchant=1, minor=900)
    shop.at(HOUR, merchant=1, minor=100)
    for word in words:
        shop.fraud(0, *word, merchant=1)
    replaced = record_at(0, merchant=1)
    replaced["amount_minor"] = 900
    shop.correct(replaced, words, 3 * HOUR, merchant=2, minor=500)
    first, second = (shop.at(asked, merchant=m, minor=100, count=False) for m in (1, 2))
    counts = ("merchant_txn_count_30d", "merchant_fraud_count_30d")
    assert [[of[name] for name in counts] for of in (first, second)] == [[1, 0], [1, known]]
    assert first["merchant_amount_ratio_82d"] == 1
    assert second["merchant_amount_ratio_82d"] == pytest.approx(100 / 500, rel=0.01)


def test_more_taken_out_than_there_is_counts_as_nothing():
    """As where an older version of this program did not take out what an earlier correction replaced."""
    shop = Shop()
    shop.at(0)
    shop.fraud(0, T0 + HOUR, merchant=1)
    shop.correct(record_at(5 * HOUR), (Word(T0 + HOUR, 1),), HOUR, minor=700)
    found = shop.at(9 * DAY, count=False)
    assert (found["merchant_txn_count_30d"], found["merchant_fraud_count_30d"]) == (2, 1)


def test_confirmed_fraud_adds_no_amount():
    shop = Shop()
    shop.at(0, minor=100)
    before = shop.at(20 * DAY, minor=500, count=False)["merchant_amount_ratio_82d"]
    shop.fraud(0, T0 + HOUR, merchant=1)
    after = shop.at(20 * DAY, minor=500, count=False)
    assert (after["merchant_amount_ratio_82d"], after["merchant_fraud_count_30d"]) == (before, 1)


def test_what_is_added_to_the_store_is_one_tile_for_an_hour_and_customer():
    entities = Entities(ENTITY_FEATURES)
    records = np.concatenate([record_at(ms, 5, device) for ms, device in ((1, 8), (0, 8), (2, 0), (HOUR, 8))])
    records["amount_minor"] = 1, 3, 7, 15  # one less than a power of two each
    added = entities.added(records, np.array([1, 2, 1, 1], dtype=np.uint32), np.array([0, 1, 2, 3]))
    h = T0 // HOUR
    step = tile_kernels.LOG_STEPS
    assert added["merchant", 5].tolist() == [
        (h, 0, 0, 3, 6 * step, 14 * step**2),
        (h + 1, 0, 0, 1, 4 * step, 16 * step**2),
    ]
    assert added["device", 8].tolist() == [
        (h, 0, 1, 1, step, step**2),
        (h, 0, 2, 1, 2 * step, 4 * step**2),
        (h + 1, 0, 1, 1, 4 * step, 16 * step**2),
    ]
    assert entities.added(records[:0], np.zeros(0, dtype=np.uint32), np.arange(0)) == {}


def test_all_is_forgotten_where_it_is_too_much():
    shop = Shop(max_tiles=5000)
    for n in range(4000):
        shop.at(n * HOUR, merchant=n + 1)
        full = shop.entities.forget_if_full()
        if full:
            break
    assert full
    assert shop.entities.missing([("merchant", 1)]) == [("merchant", 1)]


def test_entity_that_is_dropped_is_not_here_and_comes_back_with_what_it_is_given():
    entities = Entities(ENTITY_FEATURES)
    entities.put(("device", 3), [np.array([(T0 // HOUR, 0, 1, 2, 0, 0)], dtype=TILE)])
    entities.drop(("device", 3))
    assert entities.missing([("device", 3)]) == [("device", 3)]
    entities.put(("device", 3), [np.array([(T0 // HOUR, 0, 1, 5, 0, 0)], dtype=TILE)])
    assert entities.stages["device"].tiles(3)["count"].tolist() == [5]


def test_a_fraud_that_is_withdrawn_counts_until_that_is_known_for_a_whole_hour():
    shop = Shop()
    shop.at(0)
    shop.fraud(0, T0 + 8 * DAY, merchant=1)
    shop.fraud(0, T0 + 10 * DAY, -1, merchant=1)
    names = ("merchant_fraud_count_30d", "merchant_fraud_share_30d", "merchant_time_since_fraud_s_30d")
    before, after = (shop.at(day * DAY + HOUR * more, count=False) for day, more in ((10, 1), (10, 2)))
    assert [before[name] for name in names] == [1, 1, 10 * 86_400 + 3600]
    assert [after[name] for name in names[:2]] == [0, 0]
    assert np.isnan(after[names[2]])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([("fraud", 2)], [(2, 1)]),
        ([("genuine", 2)], []),
        ([("fraud", 2), ("genuine", 3)], [(2, 1), (3, -1)]),
        ([("genuine", 3), ("fraud", 2)], [(2, 1), (3, -1)]),
        ([("fraud", 3), ("genuine", 2)], [(3, 1)]),
        ([("genuine", 2), ("fraud", 3)], [(3, 1)]),
        ([("fraud", 2), ("genuine", 2)], [(2, 1), (2, -1)]),
        ([("account_closed", 2)], []),
    ],
)
def test_what_labels_say_does_not_depend_on_the_order_in_which_they_are_read(labels, said):
    history, found = record_at(0, merchant=4), []
    history["transaction"] = 7
    for code, day in labels:
        label = np.zeros(1, dtype=RECORD)
        label["kind"], label["label"], label["transaction"] = LABEL_KIND, LABEL_CODES[code], 7
        label["time_ms"] = T0 + day * DAY
        history = np.concatenate([history, label])
        found += said_by(history, label)
    assert [each.word for each in found] == [(T0 + day * DAY, change) for day, change in said]
    assert all(each.record["merchant"][0] == 4 for each in found)


def test_a_label_about_what_is_not_there_says_nothing():
    label = np.zeros(1, dtype=RECORD)
    label["kind"], label["label"], label["transaction"] = LABEL_KIND, LABEL_CODES["fraud"], 8
    history = record_at(0)
    history["transaction"] = 7
    assert said_by(np.concatenate([history, label]), label) == []
