import math

import numpy as np
import pytest

from features import tile_kernels
from features.entities import LATENESS_TILES
from features.entity_counts import Entities
from features.entity_features import ENTITY_FEATURES
from features.record import RECORD
from features.tile_codec import TILE, merge
from tests.shops import DAY, HOUR, T0, Shop


#          t - 8d           t - 7d           t
#   --------[----------------)---------------|
@pytest.mark.parametrize(
    ("age_ms", "inside"),
    [
        (7 * DAY, False),
        (7 * DAY + 30 * 60_000, False),  # the hour of t - 7d is not over at t - 7d
        (7 * DAY + 31 * 60_000, True),
        (8 * DAY + 30 * 60_000, True),
        (8 * DAY + 31 * 60_000, False),
    ],
)
def test_window_of_a_day_ends_at_the_hour_a_week_ago(age_ms, inside):
    shop, t = Shop(), 40 * DAY + 30 * 60_000
    shop.at(t - age_ms)
    assert shop.at(t)["merchant_txn_count_1d"] == inside


def test_event_is_not_in_its_own_windows_and_what_is_only_asked_is_in_none():
    shop = Shop()
    assert shop.at(0)["merchant_txn_count_30d"] == 0
    shop.at(0, count=False)
    assert shop.at(8 * DAY)["merchant_txn_count_30d"] == 1


def test_fraud_counts_once_it_has_been_known_for_a_whole_hour():
    shop = Shop()
    shop.at(0)
    known = 9 * DAY + 20 * 60_000
    shop.fraud(0, T0 + known, merchant=1)
    hour_of_known = known // HOUR * HOUR
    assert shop.at(hour_of_known + 2 * HOUR - 1, count=False)["merchant_fraud_count_30d"] == 0
    assert shop.at(hour_of_known + 2 * HOUR, count=False)["merchant_fraud_count_30d"] == 1


def test_share_is_unknown_where_nothing_happened():
    shop = Shop()
    assert math.isnan(shop.at(0)["merchant_fraud_share_7d"])
    shop.at(HOUR)
    shop.fraud(0, T0 + HOUR, merchant=1)
    assert shop.at(7 * DAY + 3 * HOUR)["merchant_fraud_share_7d"] == 0.5


def test_merchant_knows_since_when_its_newest_run_of_frauds_goes_on():
    shop, asked = Shop(), 9 * DAY
    #       hours: genuine, fraud, nothing, two frauds, fraud, genuine, genuine
    for hour, is_fraud in ((0, False), (1, True), (3, True), (3, True), (4, True), (5, False), (6, False)):
        shop.at(hour * HOUR)
        if is_fraud:
            shop.fraud(hour * HOUR, T0 + 8 * DAY, merchant=1)
    found = shop.at(asked, count=False)
    assert found["merchant_time_since_fraud_s_30d"] == 9 * 86_400 - 4 * 3600
    assert found["merchant_fraud_run_s_30d"] == 9 * 86_400 - 1 * 3600
    assert found["merchant_txn_since_fraud_30d"] == 2


def test_run_of_frauds_ends_at_an_hour_with_a_genuine_transaction():
    shop = Shop()
    for hour, is_fraud in ((1, True), (2, True), (2, False), (3, True)):
        shop.at(hour * HOUR)
        if is_fraud:
            shop.fraud(hour * HOUR, T0 + DAY, merchant=1)
    assert shop.at(9 * DAY, count=False)["merchant_fraud_run_s_30d"] == 9 * 86_400 - 3 * 3600


def test_run_is_unknown_where_no_fraud_is_known():
    shop = Shop()
    shop.at(0)
    shop.fraud(0, T0 + 9 * DAY, merchant=1)
    found = shop.at(9 * DAY, count=False)
    names = ("merchant_time_since_fraud_s_30d", "merchant_fraud_run_s_30d", "merchant_txn_since_fraud_30d")
    assert all(math.isnan(found[name]) for name in names)


@pytest.mark.parametrize("end_hour", [tile_kernels._end_hour, tile_kernels._end_hour.py_func])
def test_hours_are_met_from_the_newest_on(end_hour):
    run = np.zeros((1, 6), dtype=np.int64)
    run[:, :2] = -1
    for hour, total, frauds in ((9, 2, 0), (8, 3, 3), (7, 0, 0), (6, 1, 1), (5, 2, 1), (4, 1, 1)):
        run[0, 4:] = total, frauds
        end_hour(run, 0, hour)
    assert run[0].tolist() == [8, 6, 0, 2, 0, 0]


def test_event_without_merchant_or_device_has_no_features_of_it():
    features = Shop().at(0, merchant=0, device=7)
    without = {name.split("_")[0] for name, v in features.items() if math.isnan(v)}
    assert without == {"merchant", "counterparty"}
    assert all(math.isnan(v) for v in Shop().at(0, merchant=0).values())


def test_frauds_at_a_merchant_are_remembered_for_a_year_and_its_transactions_are_not():
    shop = Shop()
    shop.at(0)
    shop.at(HOUR)
    shop.fraud(HOUR, T0 + 20 * DAY)
    for days, known in ((100, True), (200, True), (365 + 7, True), (366 + 7, False)):
        features = shop.at(days * DAY + HOUR)
        assert features["merchant_fraud_count_365d"] == known
        assert math.isnan(features["merchant_time_since_fraud_s_365d"]) != known
        assert features["merchant_fraud_count_82d"] == 0
    (code,) = shop.entities.stages["merchant"]._slots
    kept = shop.entities.stages["merchant"].kept
    assert kept.events < kept.frauds
    # What is put together anew lets go of old transactions and keeps frauds.
    tiles = merge([shop.entities.stages["merchant"].tiles(code)], kept)
    assert [(int(t["hour"]) - T0 // HOUR) // 24 for t in tiles if t["known"] == 0] == [372, 373]
    assert (tiles["known"] != 0).sum() == 1


def test_amount_is_compared_with_those_of_all_customers_until_an_hour_ago():
    shop, random = Shop(), np.random.default_rng(4)
    times = np.sort(random.integers(0, 100 * DAY, 300)).tolist()
    minor = np.exp(random.normal(8, 1, 300)).astype(np.int64).tolist()
    compared = 0
    for n, (at, amount) in enumerate(zip(times, minor, strict=True)):
        found = shop.at(at, customer=f"c-{n}", minor=amount)
        end = (T0 + at) // HOUR * HOUR - HOUR
        before = [
            math.log(m + 1)
            for t, m in zip(times[:n], minor[:n], strict=True)
            if end - 82 * DAY <= (T0 + t) // HOUR * HOUR < end
        ]
        ratio, distance = found["merchant_amount_ratio_82d"], found["merchant_amount_zscore_82d"]
        assert math.isnan(ratio) == (len(before) == 0)
        if len(before) > 1 and np.std(before) > 0.05:
            compared += 1
            assert ratio == pytest.approx((amount + 1) / math.exp(np.mean(before)), rel=0.003)
            assert distance == pytest.approx(
                (math.log(amount + 1) - np.mean(before)) / np.std(before), abs=0.1
            )
    assert compared > 200


def test_amount_where_all_were_equal_has_a_ratio_and_no_distance():
    shop = Shop()
    for n in range(30):
        shop.at(n * HOUR, minor=999)
    found = shop.at(40 * HOUR, minor=1999, count=False)
    assert found["merchant_amount_ratio_82d"] == pytest.approx(2, rel=0.003)
    assert math.isnan(found["merchant_amount_zscore_82d"])


def test_logarithms_of_amounts_are_whole_steps_up_to_the_largest():
    minor = np.array([0, 1, 3, 2**62], dtype=np.int64)
    for compiled in (tile_kernels.log_amounts, tile_kernels.log_amounts.py_func):
        assert compiled(minor).tolist() == [0, 256, 512, 62 * 256]


def test_what_is_remembered_of_an_hour_gives_way_to_late_events_frauds_and_new_tiles():
    """Asked again and again within an hour, as one look at all tiles would answer."""
    random, shops = np.random.default_rng(8), (Shop(), Shop())
    now = 40 * DAY
    for _ in range(600):
        now += int(random.choice([0, 60_000, HOUR, DAY], p=[0.5, 0.4, 0.08, 0.02]))
        at = now - int(random.choice([0, 3 * HOUR, 8 * DAY], p=[0.8, 0.1, 0.1]))
        shops[1].entities.stages["merchant"]._known[:] = -1
        answers = [shop.at(at, merchant=1 + at % 2 * 1024, minor=at % 977) for shop in shops]
        assert str(answers[0]) == str(answers[1])
        if random.random() < 0.1:
            for shop in shops:
                shop.fraud(at, T0 + now - 5 * HOUR, merchant=1 + at % 2 * 1024)


def test_a_counterparty_of_many_and_of_frauds_is_known_an_hour_later():
    shop = Shop()
    for n in range(3):
        shop.at(n * HOUR, merchant=0, counterparty=5, customer=f"c-{n}")
    shop.fraud(0, T0 + 5 * HOUR, merchant=0, counterparty=5)
    features = shop.at(6 * HOUR, merchant=0, counterparty=5, customer="c-9")
    assert features["counterparty_txn_count_1d"] == 3
    assert features["counterparty_fraud_count_30d"] == 0, "known for less than a whole hour"
    features = shop.at(8 * HOUR, merchant=0, counterparty=5, customer="c-9")
    assert features["counterparty_fraud_count_30d"] == 1
    assert features["counterparty_time_since_fraud_s_365d"] == 8 * 3600


def test_customers_on_a_device_are_counted_once_each():
    shop = Shop()
    for n, customer in enumerate(["a", "b", "a", "c", "b"]):
        shop.at(n * 2 * HOUR, device=9, customer=customer)
    assert shop.at(10 * HOUR, device=9, customer="d")["device_customers_1d"] == 3
    assert shop.at(30 * HOUR, device=9, customer="d")["device_customers_1d"] == 3  # c, b and d
    assert shop.at(29 * HOUR, device=8)["device_customers_1d"] == 0


def test_event_later_than_the_lateness_sees_only_what_is_kept():
    merchant, kept = Shop(), 89 * DAY + LATENESS_TILES * HOUR
    merchant.at(0)
    merchant.at(kept)
    assert merchant.at(8 * DAY, count=False)["merchant_txn_count_30d"] == 1
    merchant.at(kept + HOUR)
    assert merchant.at(8 * DAY, count=False)["merchant_txn_count_30d"] == 0


def test_million_transactions_of_a_merchant_take_a_tile_an_hour():
    entities, n = Entities(ENTITY_FEATURES), 1_000_000
    entities.put(("merchant", 1))
    records = np.zeros(n, dtype=RECORD)
    records["time_ms"] = T0 + np.arange(n) * (90 * DAY // n)
    records["merchant"] = 1
    for start in range(0, n, 5000):
        chunk = records[start : start + 5000]
        out = entities.compute(chunk, np.ones(len(chunk), dtype=np.uint32), np.arange(len(chunk)), count=True)
    assert len(entities.stages["merchant"].tiles(1)) <= 90 * 24
    assert entities.stages["merchant"].reserved < 32_768
    column = [f.name for f in ENTITY_FEATURES].index("merchant_txn_count_30d")
    hour = records["time_ms"] // HOUR
    end = int(hour[-1]) - 7 * 24
    assert out[-1, column] == ((hour >= end - 30 * 24) & (hour < end)).sum()


@pytest.mark.parametrize("seed", range(40))
def test_features_beyond_the_limit_do_not_depend_on_when_tiles_were_put_together(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(20, 200))
    tiles = np.zeros(n, dtype=TILE)
    tiles["hour"] = np.sort(random.integers(480_000, 490_000, n))
    fraud = random.random(n) < 0.4
    tiles["known"] = np.where(fraud, tiles["hour"] + random.integers(1, 500, n), 0)
    tiles["count"] = random.integers(1, 4, n)
    tiles["log_sum"] = np.where(fraud, 0, tiles["count"] * random.integers(0, 3000, n).astype(np.uint64))
    tiles["log_squares"] = tiles["log_sum"] * 5000
    record = np.zeros(1, dtype=RECORD)
    record["time_ms"] = (int(tiles["hour"][-1]) + int(random.integers(0, 200))) * HOUR
    record["merchant"] = 1
    stage = Entities(ENTITY_FEATURES).stages["merchant"]
    stage.kept = stage.kept._replace(most=int(random.integers(5, 40)))
    in_parts = tiles[:0]
    for begin in range(0, n, 7):
        in_parts = merge([in_parts, tiles[begin : begin + 7]], stage.kept)
    found = []
    for at_once, later in ((tiles, tiles[:0]), (in_parts, tiles[:0]), (tiles[:0], tiles)):
        stage.put(1, [at_once])
        for tile in later:
            stage.add(1, np.array([tile]))
        found.append(stage.compute(record, np.zeros(1, np.uint32), np.arange(1), False).tobytes())
    assert len(set(found)) == 1
