"""What is answered without history, and that it says so."""

from httpx import ASGITransport, AsyncClient

from api.application import create_app
from api.deps import Services
from api.failure_policy import FailurePolicy
from schemas.errors import HistoryError, HistoryIncomplete
from tests.serving import AWAY, NOW, Broken

BODY = {
    "transaction_id": "t-1",
    "customer_id": "c-1",
    "event_time": "2025-12-01T00:00:00Z",
    "amount": "12.00",
    "currency": "EUR",
}


async def ask(error, models, policy, route="/inference/fraud-detection"):
    app = create_app(Services(Broken(error), models, None, lambda: NOW, policy=policy))
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app=app), base_url="http://tidegate") as client,
    ):
        answer = await client.post(route, json=BODY)
        return answer, (await client.get("/metrics")).text


async def test_held_cause_is_503_and_counts_nothing(models):
    answer, metrics = await ask(AWAY, models, FailurePolicy(redis_away="hold"))
    assert answer.status_code == 503
    assert "tidegate_degraded_total{" not in metrics


async def test_open_cause_is_scored_without_history_and_says_so(models):
    answer, metrics = await ask(AWAY, models, FailurePolicy(redis_away="open"))
    assert answer.status_code == 200
    assert answer.json()["flags"] == ["cold_start", "degraded"]
    assert 'tidegate_degraded_total{cause="redis_away"} 1.0' in metrics


async def test_each_cause_has_its_own_policy(models):
    unreadable = HistoryError("a stored history of 3 bytes is cut off")
    held, _ = await ask(unreadable, models, FailurePolicy(redis_away="open"))
    assert held.status_code == 503
    scored, metrics = await ask(unreadable, models, FailurePolicy(history_unreadable="open"))
    assert scored.json()["flags"] == ["cold_start", "degraded"]
    assert 'cause="history_unreadable"' in metrics


async def test_churn_is_never_guessed_without_history(models):
    policy = FailurePolicy(redis_away="open", history_unreadable="open")
    answer, _ = await ask(AWAY, models, policy, "/inference/churn-score")
    assert answer.status_code == 503


async def test_histories_that_are_being_built_are_no_histories(models):
    building = HistoryIncomplete("histories of partition 2 are being built from the log")
    answer, metrics = await ask(building, models, FailurePolicy())
    assert answer.json()["decision"] != "allow"
    assert answer.json()["flags"] == ["cold_start", "degraded"]
    assert 'tidegate_degraded_total{cause="history_incomplete"} 1.0' in metrics
    held, _ = await ask(building, models, FailurePolicy(redis_away="hold"))
    assert (held.status_code, held.json()["type"]) == (503, "history-incomplete")
    churn, _ = await ask(building, models, FailurePolicy(), "/inference/churn-score")
    assert (churn.status_code, churn.json()["type"]) == (503, "history-incomplete")
