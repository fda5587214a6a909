import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from generator.draws import Pools, Stream, choose, generator_for


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 1_000))
def test_a_draw_is_a_member_of_its_group(groups, seed):
    group = np.array(groups)
    pools = Pools(group, np.linspace(0.1, 5.0, group.size), 5)
    drawn = pools.draw(np.random.default_rng(seed), group)
    assert (group[drawn] == group).all()
    assert pools.sizes().sum() == group.size


def test_draws_follow_the_weights():
    pools = Pools(np.zeros(2, np.int64), np.array([1.0, 3.0]), 1)
    drawn = pools.draw(np.random.default_rng(0), np.zeros(20_000, np.int64))
    assert 0.73 < drawn.mean() < 0.77


def test_choices_follow_the_cumulative_shares():
    chosen = choose(np.random.default_rng(0), np.broadcast_to(np.array([0.2, 0.5, 0.9999]), (20_000, 3)))
    share = np.bincount(chosen) / 20_000
    assert np.abs(share - [0.2, 0.3, 0.5]).max() < 0.02


def test_purposes_and_days_have_numbers_of_their_own():
    first = {float(generator_for(1, stream, day).random()) for stream in Stream for day in range(5)}
    assert len(first) == 5 * len(Stream)
