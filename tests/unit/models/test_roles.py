import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.pipeline import decide
from models.roles import (
    Challenger,
    Roles,
    ShadowScore,
    identity,
    in_share,
    model_for,
    of_identity,
    shadow_scores,
    split,
)
from schemas.errors import ModelError

VERSIONS = st.sampled_from([f"v{n}" for n in range(1, 6)])
STEPS = st.lists(st.tuples(st.sampled_from(["promote", "challenge", "shadow", "retire", "back"]), VERSIONS))
CUSTOMERS = [f"c{n:07d}" for n in range(20_000)]


def step(roles, what, version):
    try:
        return {
            "promote": lambda: roles.promoted(version),
            "challenge": lambda: roles.challenged(version, 0.2),
            "shadow": lambda: roles.shadowed(version),
            "retire": lambda: roles.without(version),
            "back": roles.rolled_back,
        }[what]()
    except ModelError:
        return roles


@given(STEPS)
def test_whatever_is_done_a_version_has_one_role_and_a_champion_stays(steps):
    roles = Roles()
    for what, version in steps:
        had = roles.champion
        roles = step(roles, what, version)
        given_out = [roles.champion, roles.challenger, *roles.shadows]
        named = [v for v in given_out if v]
        assert len(named) == len(set(named))
        assert roles.champion or not had
        assert (roles.share > 0) == bool(roles.challenger)
        assert of_identity(identity({"fraud": roles}))["fraud"] == Roles(
            roles.champion, roles.challenger, roles.share, roles.shadows
        )


def test_rolling_back_undoes_promotions_one_by_one():
    roles = Roles("v1").promoted("v2").promoted("v3")
    assert roles.former == ("v1", "v2")
    assert roles.rolled_back().champion == "v2"
    assert roles.rolled_back().rolled_back() == Roles("v1")
    with pytest.raises(ModelError, match="no champion before v1"):
        Roles("v1").rolled_back()


def test_promoting_the_champion_changes_nothing():
    assert Roles("v2", former=("v1",)).promoted("v2") == Roles("v2", former=("v1",))


def test_a_promoted_challenger_is_no_challenger_any_more():
    roles = Roles("v1", "v2", 0.1, ("v3",)).promoted("v2")
    assert roles == Roles("v2", shadows=("v3",), former=("v1",))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_challengers_share_is_a_part_of_the_customers(share):
    with pytest.raises(ModelError, match="above 0 and below 1"):
        Roles("v1").challenged("v2", share)


@pytest.mark.parametrize("text", ["", "[]", '{"fraud": 1}', '{"fraud": {"champion": 1}}', "{"])
def test_a_text_that_names_no_set_is_refused(text):
    with pytest.raises(ModelError, match="names no set of models"):
        of_identity(text)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_share_has_as_many_customers_as_it_says(share):
    found = in_share(CUSTOMERS, share).mean()
    # Five standard deviations of a binomial share.
    assert abs(found - share) < 5 * (share * (1 - share) / len(CUSTOMERS)) ** 0.5


def test_a_larger_share_keeps_those_of_a_smaller_one():
    assert (in_share(CUSTOMERS, 0.1) <= in_share(CUSTOMERS, 0.2)).all()


def test_every_row_goes_to_the_one_model_of_its_customer():
    champion, model = object(), object()
    challenger = Challenger(model, 0.3)
    rows = np.arange(0, len(CUSTOMERS), 7)
    found = {row: m for m, mine in split(champion, challenger, CUSTOMERS, rows) for row in mine.tolist()}
    assert sorted(found) == rows.tolist()
    assert {m for m in found.values()} == {champion, model}
    for row in rows[:200].tolist():
        assert found[row] is model_for(champion, challenger, CUSTOMERS[row])


def test_without_a_challenger_the_champion_scores_all():
    champion, rows = object(), np.arange(3)
    assert [(m, r.tolist()) for m, r in split(champion, None, CUSTOMERS, rows)] == [(champion, [0, 1, 2])]
    assert model_for(champion, None, "c-1") is champion


def test_each_shadow_says_something_of_each_row_that_is_scored(models, eager, training_data):
    X, rows = training_data.X[:4].astype(np.float64), np.array([1, 3])
    shadows = [models.fraud, eager.fraud]
    found = shadow_scores(shadows, X, rows, decide)
    assert found == {
        row: [ShadowScore(m, m.predict_proba(X)[row], decide(m, m.predict_proba(X))[row]) for m in shadows]
        for row in rows.tolist()
    }
    assert shadow_scores([], X, rows, decide) == {}
