from datetime import UTC, datetime, timedelta, timezone

import pytest

from generator.settings import BankSettings
from schemas.errors import ConfigError


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"customers": 9}, "customers"),
        ({"merchants": 10}, "merchants"),
        ({"seed": -1}, "seed"),
        ({"start": datetime(2025, 1, 1)}, "start"),  # noqa: DTZ001
        ({"start": datetime(2025, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "start"),
        ({"start": datetime(2025, 1, 1, 6, tzinfo=UTC)}, "start"),
        ({"days": 0}, "days"),
        ({"fraud_rate": 1.0}, "fraud_rate"),
        ({"churn_rate": -0.1}, "churn_rate"),
        ({"review_rate": float("nan")}, "review_rate"),
        ({"label_delay_days": 0.0}, "label_delay_days"),
        ({"country": "XX"}, "country"),
        ({"currency": "JPY"}, "currency"),
        ({"currency": "eur"}, "currency"),
        ({"typologies": ("arson",)}, "arson"),
        ({"typology_from": {"arson": 3}}, "arson"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(wrong, named):
    with pytest.raises(ConfigError, match=named):
        BankSettings(**wrong)


def test_merchants_follow_customers_and_never_get_too_few():
    assert BankSettings(customers=10).merchant_count == 240
    assert BankSettings(customers=40_000).merchant_count == 10_000


def test_the_span_ends_where_the_last_day_does():
    chosen = BankSettings(start=datetime(2025, 1, 1, tzinfo=UTC), days=2)
    assert datetime.fromtimestamp(chosen.end_ms / 1000, UTC) == datetime(2025, 1, 3, tzinfo=UTC)
