import pytest

from schemas.errors import HistoryError, ModelError, QuestionError, SlowAnswerError
from tests.serving import Broken, assert_problem, serving


async def test_a_path_that_is_none_is_a_problem_document(client):
    assert_problem(await client.get("/nowhere/c-secret"), 404, "http-not-found", "c-secret")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/live", "GET"),
        ("PUT", "/customers/c-secret/features", "GET"),
        ("GET", "/inference/fraud-detection", "POST"),
        ("PUT", "/inference/churn-score", "POST"),
        ("PUT", "/customers/c-secret", "DELETE, GET"),
        ("POST", "/customers/c-secret/more", "DELETE, GET"),
        ("PATCH", "/stream/scores", "GET"),
    ],
)
async def test_another_method_says_which_is_allowed(client, method, path, allowed):
    response = await client.request(method, path)
    assert_problem(response, 405, "http-method-not-allowed", "c-secret")
    assert response.headers["allow"] == allowed


async def test_a_refused_head_has_no_body(client):
    response = await client.head("/inference/churn-score")
    assert (response.status_code, response.text) == (405, "")


async def test_an_error_that_nobody_foresaw_keeps_its_words_to_itself(eager):
    error = ValueError("4111111111111111 of Jane Doe")
    async with serving(Broken(error), eager, raise_app_exceptions=False) as api:
        response = await api.get("/customers/c-secret/features")
    assert_problem(response, 500, "unforeseen", "4111", "Jane", "c-secret", "ValueError")


async def test_an_error_that_nobody_foresaw_reaches_the_log(eager):
    async with serving(Broken(ValueError("for the log")), eager) as api:
        with pytest.raises(ValueError, match="for the log"):
            await api.get("/customers/c-1/features")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (HistoryError("the store is empty: no worker has run against it yet"), 503, "history-unreadable"),
        (ModelError("a model is gone"), 503, "model-unusable"),
        (SlowAnswerError("no answer within 5 s: ask for fewer days"), 503, "too-slow"),
        (QuestionError("there are too many groups: ask for fewer days"), 422, "too-much-asked"),
    ],
)
async def test_errors_of_ours_are_told_in_their_own_words(eager, error, status, kind):
    # Raised by the application they would be a crash: the client raises what reaches it.
    async with serving(Broken(error), eager) as api:
        response = await api.get("/customers/c-1/features")
    problem = assert_problem(response, status, kind)
    assert problem["detail"] == str(error)


@pytest.mark.parametrize(
    "path", ["/inference/fraud-detection", "/inference/churn-score", "/inference/segment"]
)
@pytest.mark.parametrize("headers", [[(b"content-length", b"100")], [(b"transfer-encoding", b"chunked")]])
async def test_a_client_that_goes_away_while_it_sends_is_no_error_of_ours(client, path, headers):
    said = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *headers],
    }

    async def receive():
        return said.pop(0)

    async def send(message):
        pass

    # An error that nobody foresaw would come out here, and then stand in the log.
    await client._transport.app(scope, receive, send)
    counted = (await client.get("/metrics")).text
    assert 'status="400"' in counted
    assert 'status="500"' not in counted
