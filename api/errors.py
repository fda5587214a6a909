"""Errors as RFC 9457 problem documents."""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_problem.error import Problem
from fastapi_problem.handler import add_exception_handler
from starlette_problem.handler import ExceptionHandler

from schemas.errors import DependencyError, EventError, HistoryError, ModelError, TidegateError


class UnknownCustomer(TidegateError):
    """No transaction of this customer was ever accepted: HTTP 404."""


_KINDS: dict[type[TidegateError], tuple[int, str, str]] = {
    EventError: (422, "refused-message", "The message is refused"),
    UnknownCustomer: (404, "unknown-customer", "The customer is unknown"),
    DependencyError: (503, "dependency-away", "A dependency does not answer"),
    HistoryError: (503, "history-unreadable", "The stored history cannot be used"),
    ModelError: (503, "model-unusable", "A model cannot be used"),
}


def add_error_handlers(app: FastAPI) -> None:
    """Answer errors of ours, of validation and of HTTP with problem documents."""
    handler = add_exception_handler(
        app,
        handlers={kind: _problem_of(*words) for kind, words in _KINDS.items()},
        request_validation_handler=_invalid_request,
    )
    # By their types as well: what only the handler of last resort answers is logged as a crash.
    for kind in _KINDS:
        app.add_exception_handler(kind, handler)


def _problem_of(
    status: int, kind: str, title: str
) -> Callable[[ExceptionHandler, Request, Exception], Problem]:
    def answer(handler: ExceptionHandler, request: Request, error: Exception) -> Problem:
        # Sentences of `TidegateError` never repeat a value that was sent.
        extra = {"reason": error.reason} if isinstance(error, EventError) else {}
        headers = {"Retry-After": "1"} if status == 503 else None
        return Problem(title=title, type_=kind, status=status, detail=str(error), headers=headers, **extra)

    return answer


def _invalid_request(handler: ExceptionHandler, request: Request, error: Exception) -> Problem:
    # Not pydantic's own list: it repeats the values, which may be personal data.
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
    return Problem(title="The request is refused", type_="refused-request", status=422, detail=places)
