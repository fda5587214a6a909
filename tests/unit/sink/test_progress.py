"""How old what is stored may be, on a clock that the test moves."""

import pytest

from sink.progress import Progress

SCORES, CHURN = ("scores.fraud", 0), ("scores.churn", 0)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return Progress(clock)


def test_a_sink_that_has_all_is_as_far_behind_as_its_last_question(progress, clock):
    progress.ask()
    clock.now += 2
    progress.stored({SCORES: 0, CHURN: 0}, [])
    assert progress.behind_s() == 2


def test_a_sink_that_hangs_falls_behind(progress, clock):
    progress.ask()
    progress.stored({SCORES: 0}, [])
    clock.now += 600
    assert progress.behind_s() == 600


def test_a_backlog_is_as_old_as_what_was_read_last(progress, clock):
    progress.read(*SCORES, int(clock.now * 1000) - 36_000_000)
    progress.ask()
    progress.stored({SCORES: 5, CHURN: 0}, [])
    assert progress.behind_s() == 36_000
    progress.ask()
    progress.stored({SCORES: 0, CHURN: 0}, [])
    assert progress.behind_s() == 0


def test_the_partition_that_is_furthest_behind_counts(progress, clock):
    for key, age_s in ((SCORES, 50), (CHURN, 400)):
        progress.read(*key, int((clock.now - age_s) * 1000))
    progress.ask()
    progress.stored({SCORES: 1, CHURN: 1}, [])
    assert progress.behind_s() == 400


def test_a_record_after_a_quiet_day_is_not_a_day_behind(progress, clock):
    progress.read(*CHURN, int(clock.now * 1000))
    clock.now += 86_400
    progress.ask()
    progress.stored({CHURN: 0}, [])
    clock.now += 2
    progress.ask()
    progress.stored({CHURN: 1}, [])
    assert progress.behind_s() == 2


def test_a_partition_of_which_nothing_was_read_is_behind_since_the_start(progress, clock):
    clock.now += 40
    progress.ask()
    progress.stored({SCORES: 0, CHURN: 9}, [])
    assert progress.behind_s() == 40


@pytest.mark.parametrize(
    ("unread", "waiting"),
    [({SCORES: 0}, [SCORES]), ({SCORES: None}, []), ({SCORES: 7}, [])],
    ids=["a score waits for its transaction", "the log has not answered", "nothing was read yet"],
)
def test_what_is_not_known_to_be_stored_stays_as_old_as_it_was(progress, clock, unread, waiting):
    progress.ask()
    progress.stored({SCORES: 0}, [])
    clock.now += 30
    progress.ask()
    progress.stored(unread, waiting)
    assert progress.behind_s() == 30
