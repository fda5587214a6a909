import numpy as np
import pytest

from harness.bench_latency import line, summary
from harness.latency_plot import draw
from harness.paced import PacedRun, Published, ScoresRead

RUN = PacedRun("r", 1000, 1000.0, begin=50.0)
DUE = 50.0 + np.arange(1000) / 1000


def of(*, read_after_s: np.ndarray, late_s: float = 0.0) -> dict[str, object]:
    published = Published(DUE + late_s, DUE + late_s + 0.001)
    return summary(RUN, published, ScoresRead(DUE + read_after_s, 0), 0)


def test_latency_counts_from_when_a_message_was_due_and_not_from_when_it_went_out() -> None:
    """The publisher stands still for 100 ms: who waited for it is late too."""
    went_out = np.maximum(DUE, np.where(np.arange(1000) < 200, 50.2, 0.0))
    read = ScoresRead(went_out + 0.002, 0)
    measured = summary(RUN, Published(went_out, went_out), read, 0)
    assert measured["latency_ms"]["max"] == pytest.approx(202, abs=0.5)
    assert measured["latency_ms"]["p50"] == pytest.approx(2, abs=0.1)
    assert measured["latency_ms"]["p90"] == pytest.approx(102, abs=2)
    assert measured["publisher_late"]


def test_publisher_in_time_is_not_called_late() -> None:
    measured = of(read_after_s=np.full(1000, 0.004), late_s=0.001)
    assert not measured["publisher_late"]
    assert measured["publisher_late_ms"]["p99"] == pytest.approx(1, abs=0.1)
    assert measured["acknowledged_ms"]["p50"] == pytest.approx(2, abs=0.1)
    assert not measured["saturated"]


def test_score_that_never_came_is_later_than_any_that_did() -> None:
    after = np.full(1000, 0.004)
    after[500] = np.nan
    measured = of(read_after_s=after)
    assert measured["missing"] == 1
    assert measured["latency_ms"]["p99"] == pytest.approx(4, abs=0.1)
    assert measured["latency_ms"]["max"] is None
    assert measured["saturated"]
    assert "1 never came" in line(measured)
    assert sum(bucket["events"] for bucket in measured["histogram_ms"]) == 1000
    assert measured["histogram_ms"][-1] == {"up_to": None, "events": 1}


def test_latency_that_only_grows_is_saturation() -> None:
    assert of(read_after_s=np.linspace(0.0, 8.0, 1000))["saturated"]
    spike = np.full(1000, 0.004)
    spike[300:400] = 3.0
    assert not of(read_after_s=spike)["saturated"]


def test_bucket_takes_what_is_equal_to_its_bound() -> None:
    measured = summary(
        PacedRun("r", 3, 1.0), Published(np.arange(3.0), np.arange(3.0)), ScoresRead(np.arange(3) + 0.5, 0), 0
    )
    assert [b["up_to"] for b in measured["histogram_ms"] if b["events"]] == [500]


def test_messages_of_the_warm_up_are_not_counted() -> None:
    after = np.full(1000, 0.003)
    after[:100] = 5.0
    measured = summary(RUN, Published(DUE, DUE), ScoresRead(DUE + after, 2), 100)
    assert (measured["events"], measured["repeated"]) == (900, 2)
    assert measured["latency_ms"]["max"] == pytest.approx(3, abs=0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_picture_names_its_lines_and_marks_saturation(tmp_path) -> None:
    fine, slow = of(read_after_s=np.full(1000, 0.004)), of(read_after_s=np.linspace(0.0, 8.0, 1000))
    path = tmp_path / "latency.svg"
    environment = {"cores": 2, "at": "2026-01-01", "load_before": 0.5}
    draw({"rates": [fine, slow | {"rate": 5000.0}], "environment": environment}, path)
    text = path.read_text()
    for expected in ("p99.9", "events a second", "saturated", "2 shared cores"):
        assert expected in text
