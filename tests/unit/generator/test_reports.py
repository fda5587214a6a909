"""Labels: late, sometimes never, and always about something that happened."""

from collections import Counter, defaultdict
from statistics import median

import numpy as np
import pytest

from generator.events import TYPOLOGIES
from generator.reports import reported
from generator.rows import Kind, make_rows
from generator.settings import DAY_MS, HOUR_MS, BankSettings


def test_a_label_comes_after_its_transaction_and_tells_the_truth(stream):
    seen = {}
    for event in stream:
        if event.topic == "transactions":
            seen[event.message["transaction_id"]] = event
        elif event.topic == "labels" and event.message["label"] != "account_closed":
            about = seen[event.message["transaction_id"]]
            assert about.time_ms < event.time_ms
            assert about.message["customer_id"] == event.message["customer_id"]
            assert (about.typology is not None) == (event.message["label"] == "fraud")
            assert about.typology == event.typology


def test_a_transaction_is_labelled_once(labels):
    counts = Counter(e.message["transaction_id"] for e in labels if "transaction_id" in e.message)
    assert max(counts.values()) == 1


def test_sources_are_those_that_can_know(labels):
    sources = defaultdict(set)
    for event in labels:
        sources[event.message["label"]].add(event.message["source"])
    assert sources == {
        "fraud": {"chargeback", "analyst", "customer"},
        "genuine": {"analyst"},
        "account_closed": {"system"},
    }


def delays_ms(typology: str, settings: BankSettings, episodes: int = 1_500) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(8)
    delays, sources = [], []
    for _ in range(episodes):
        rows = reported(rng, settings, make_rows(0, np.array([0]), 100, Kind.POS), typology)
        delays.append(int(rows["label_ms"][0]))
        sources.append(int(rows["label_by"][0]))
    return delays, sources


def test_median_delay_over_all_ways_is_the_setting():
    settings = BankSettings(label_delay_days=5.0)
    delays = [d for typology in TYPOLOGIES for d in delays_ms(typology, settings)[0] if d > 0]
    assert median(delays) / DAY_MS == pytest.approx(5.0, abs=1.0)
    assert 0.01 < sum(delay > 30 * DAY_MS for delay in delays) / len(delays) < 0.1


def test_analysts_know_within_hours():
    delays, sources = delays_ms("large_amount", BankSettings())
    by_analyst = [delay for delay, source in zip(delays, sources, strict=True) if source == 1 and delay]
    assert HOUR_MS < median(by_analyst) < 12 * HOUR_MS


def test_some_are_never_reported():
    for typology in TYPOLOGIES:
        silent = sum(delay == 0 for delay in delays_ms(typology, BankSettings())[0]) / 1_500
        assert 0.01 < silent < 0.15


def test_nothing_happens_after_the_report():
    rng = np.random.default_rng(2)
    hourly = make_rows(0, np.arange(24 * 60) * HOUR_MS, 100, Kind.ECOMMERCE)
    for _ in range(50):
        rows = reported(rng, BankSettings(unreported_rate=0.0), hourly, "card_testing")
        assert rows.size > 0
        assert (rows["label_ms"] > rows["time_ms"]).all()
