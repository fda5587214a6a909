"""The tables of docs/benchmarks.md: `pytest -m bench tests/bench -s`."""

import pytest

from features.catalogue import FEATURES
from harness.bench_features import LENGTHS, first_features, history, markdown, run_features


def test_some_features_come_with_what_they_are_made_of() -> None:
    for number in (1, 10, 50, len(FEATURES)):
        some = first_features(number)
        names = {feature.name for feature in some}
        declared = {feature.name for feature in FEATURES}
        assert number <= len(some) <= len(FEATURES)
        assert all(part in names or part not in declared for feature in some for part in feature.of)


def test_a_history_is_in_time_order_and_the_same_each_time() -> None:
    records = history(300, 1)
    assert (records["time_ms"][1:] >= records["time_ms"][:-1]).all()
    assert records.tobytes() == history(300, 1).tobytes()


@pytest.mark.bench
def test_cost_grows_with_the_history_and_tables_have_every_row() -> None:
    result = run_features(5)
    cost = [row["microseconds"] for row in result["by_history_length"]]
    assert cost[0] < cost[-1]
    assert [row["events"] for row in result["by_history_length"]] == list(LENGTHS)
    numbers = [row["features"] for row in result["by_number_of_features"]]
    assert numbers == sorted(numbers)
    assert numbers[-1] == len(FEATURES)
    written = markdown(result)
    print(written)
    assert written.count("\n| ") == len(LENGTHS) + len(numbers) + 4
