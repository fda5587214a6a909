import pytest

from tests.serving import AWAY, Broken, assert_problem, serving


async def test_live_asks_nobody_else(client, away):
    for api in (client, away):
        response = await api.get("/live")
        assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_ready_while_the_store_answers(client):
    response = await client.get("/ready")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})


async def test_not_ready_while_the_store_is_away(away):
    response = await away.get("/ready")
    assert_problem(response, 503, "dependency-away")
    assert response.headers["retry-after"] == "1"


async def test_health_names_every_part(client, eager):
    response = await client.get("/health")
    health = response.json()
    assert response.status_code == 200
    assert health["status"] == "up"
    assert health["features"] == eager.engine.hash
    assert {name: part["status"] for name, part in health["parts"].items()} == {
        "redis": "up",
        "fraud": "up",
        "churn": "up",
    }
    assert health["parts"]["fraud"]["detail"].startswith("v1 of 2026-01-01")
    assert health["parts"]["redis"]["milliseconds"] >= 0


@pytest.mark.parametrize("error", [AWAY, RuntimeError("something else")], ids=["away", "broken"])
async def test_health_says_which_part_is_down_and_the_log_why(eager, error, capsys):
    async with serving(Broken(error), eager) as api:
        response = await api.get("/health")
    health = response.json()
    assert response.status_code == 503
    assert health["status"] == "down"
    part = health["parts"]["redis"]
    assert (part["status"], part["milliseconds"]) == ("down", None)
    # The log says why; hosts and ports are not for everybody.
    assert str(error) not in response.text
    assert str(error) in capsys.readouterr().out
    assert health["parts"]["fraud"]["status"] == health["parts"]["churn"]["status"] == "up"
