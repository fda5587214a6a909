"""Errors as RFC 9457 problem documents."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_problem.error import Problem, ServerProblem
from fastapi_problem.handler import new_exception_handler
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette_problem.handler import ExceptionHandler

from api.access import ACCESS
from api.ports import InvalidCursor, InvalidPosition
from schemas.errors import (
    DependencyError,
    EventError,
    HistoryError,
    HistoryIncomplete,
    ModelError,
    QuestionError,
    RightsError,
    SlowAnswerError,
    TidegateError,
)

_log = structlog.get_logger()
REQUEST_ID: Final = "tidegate.request_id"


class UnknownCustomer(TidegateError):
    """No transaction of this customer was ever accepted: HTTP 404."""


class _Unforeseen(ServerProblem):
    title = "Something went wrong here"
    type_ = "unforeseen"

    def __init__(self, *told: str) -> None:
        # Not the error's own words: they may repeat personal data. The log has them.
        super().__init__("the error is in the log of the service")


_KINDS: dict[type[TidegateError], tuple[int, str, str]] = {
    EventError: (422, "refused-message", "The message is refused"),
    UnknownCustomer: (404, "unknown-customer", "The customer is unknown"),
    InvalidCursor: (422, "invalid-cursor", "The cursor is refused"),
    InvalidPosition: (422, "invalid-event-id", "The event id is refused"),
    HistoryIncomplete: (503, "history-incomplete", "Histories are being built"),
    QuestionError: (422, "too-much-asked", "The answer would be too large"),
    # Before what it is a kind of: the first that fits is taken.
    RightsError: (503, "rights-missing", "Redis does not let this service do its work"),
    SlowAnswerError: (503, "too-slow", "The answer takes too long"),
    DependencyError: (503, "dependency-away", "A dependency does not answer"),
    HistoryError: (503, "history-unreadable", "The stored history cannot be used"),
    ModelError: (503, "model-unusable", "A model cannot be used"),
}


AWAY_WORDS: Final = "what this answer is made from does not respond; try again in a moment"
INCOMPLETE_WORDS: Final = (
    "histories are being built from the log, or are to be: nothing can be said of customers yet"
)
_STATUS: Final = {
    "unknown_customer": 404,
    "not_here": 404,
    "conflict": 409,
    "too_long": 413,
    "refused": 422,
    "too_many": 429,
    "away": 503,
}
_SCHEMA: Final = {
    "title": "Problem",
    "description": "RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "description": "Stable name of the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "request_id": {"type": "string", "description": "The same as the header `X-Request-ID`."},
        "detail": {"type": "string", "description": "For a person; never repeats what was sent."},
        "reason": {"type": "string", "description": "Of a refused message: the code of its dead letter."},
    },
}


def add_error_handlers(app: FastAPI) -> None:
    """Answer errors of ours, of validation and of HTTP with problem documents."""
    handler = new_exception_handler(
        handlers={kind: _problem_of(*words) for kind, words in _KINDS.items()},
        unhandled_wrappers={"default": _Unforeseen},
        request_validation_handler=_invalid_request,
        post_hooks=[_with_every_method, _with_request_id],
    )
    app.add_exception_handler(ClientDisconnect, _broken_off)
    # By their types as well: what only the handler of last resort answers is logged as a crash. Not by
    # fastapi-problem's own function: it breaks the OpenAPI document of routes that describe a 422.
    for kind in (*_KINDS, Problem, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handler)


def problems(**described: str) -> dict[int | str, dict[str, Any]]:
    """Responses of a route for its OpenAPI document.

    >>> problems(unknown_customer="Never seen.")[404]["description"]
    'Never seen.'
    """
    return {
        _STATUS[name]: {"description": text, "content": {"application/problem+json": {"schema": _SCHEMA}}}
        for name, text in described.items()
    }


def unauthorised(error: str | None) -> Problem:
    """401: there is no token, or (`invalid_token`) it proves nothing."""
    told = 'Bearer realm="tidegate"' + (f', error="{error}"' if error else "")
    return Problem(
        title="Who asks is not known",
        type_="unauthorised",
        status=401,
        detail="send 'Authorization: Bearer TOKEN' with a valid access token",
        headers={"WWW-Authenticate": told},
    )


def forbidden(why: str, scope: str | None) -> Problem:
    """403: known, but not allowed."""
    told = 'Bearer realm="tidegate", error="insufficient_scope"' + (f', scope="{scope}"' if scope else "")
    return Problem(
        title="This is not allowed",
        type_="forbidden",
        status=403,
        detail=why,
        headers={"WWW-Authenticate": told},
    )


def too_many(retry_s: int) -> Problem:
    """429: the client's allowance on this route is used up."""
    return Problem(
        title="Too many requests",
        type_="too-many-requests",
        status=429,
        detail=f"the allowance of this client is used up; try again in {retry_s} s",
        headers={"Retry-After": str(retry_s)},
    )


def kind_of(error: Exception) -> str:
    """The `type` of the problem that an error is answered with.

    >>> kind_of(HistoryIncomplete("partition 3"))
    'history-incomplete'
    """
    kinds = (kind for known, (_, kind, _) in _KINDS.items() if isinstance(error, known))
    return next(kinds, "timeout" if isinstance(error, TimeoutError) else _Unforeseen.type_)


def told(error: Exception) -> str:
    """What may be said of an error to everybody.

    >>> told(HistoryIncomplete("partition 3")) == INCOMPLETE_WORDS
    True
    """
    if isinstance(error, HistoryIncomplete):
        return INCOMPLETE_WORDS
    if isinstance(error, SlowAnswerError | RightsError):
        return str(error)
    # Of a dependency they name hosts and ports; of what nobody foresaw, whatever there is.
    foreseen = isinstance(error, TidegateError) and not isinstance(error, DependencyError)
    return str(error) if foreseen else AWAY_WORDS


def problem_response(problem: Problem) -> Response:
    """A problem as an answer, for where no exception handler is."""
    headers = {"content-type": "application/problem+json", **(problem.headers or {})}
    return JSONResponse(problem.marshal(uri=""), problem.status, headers)


def _problem_of(
    status: int, kind: str, title: str
) -> Callable[[ExceptionHandler, Request, Exception], Problem]:
    def answer(handler: ExceptionHandler, request: Request, error: Exception) -> Problem:
        # Sentences of `TidegateError` never repeat a value that was sent.
        extra = {"reason": error.reason} if isinstance(error, EventError) else {}
        headers = {"Retry-After": "1"} if status == 503 else None
        detail = told(error)
        if detail == AWAY_WORDS:
            _log.warning("a request failed for a dependency", error=str(error))
        return Problem(title=title, type_=kind, status=status, detail=detail, headers=headers, **extra)

    return answer


async def _broken_off(request: Request, error: Exception) -> Response:
    # Nobody reads it. Not left to be an error of ours: a client that goes away must not look like one.
    why = "the client went away before its request was complete"
    return problem_response(Problem(title="Bad Request", type_="http-bad-request", status=400, detail=why))


def _with_every_method(
    content: dict[str, Any], request: Request, response: JSONResponse
) -> tuple[dict[str, Any], JSONResponse]:
    if response.status_code == 405:
        # The router names those of one route, and a path may have several.
        path = getattr(request.scope.get("route"), "path_format", "")
        if methods := sorted(method for method, known in ACCESS if known == path and method != "WEBSOCKET"):
            response.headers["Allow"] = ", ".join(methods)
    return content, response


def _with_request_id(
    content: dict[str, Any], request: Request, response: JSONResponse
) -> tuple[dict[str, Any], JSONResponse]:
    if (request_id := request.scope.get(REQUEST_ID)) is not None:
        content = {**content, "request_id": request_id}
        response.body = response.render(content)
    return content, response


def _invalid_request(handler: ExceptionHandler, request: Request, error: Exception) -> Problem:
    # Not pydantic's own list: it repeats the values, which may be personal data.
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
    return Problem(title="The request is refused", type_="refused-request", status=422, detail=places)
