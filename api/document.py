"""The OpenAPI document: what every route has in common, said at every route."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.access import ACCESS, SCOPES
from api.errors import problems

_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_COMMON: Final = {
    401: "There is no token, or it proves nothing.",
    403: "The token lacks the scope, or is of a tenant that is not served here.",
    429: "The client's allowance on this route is used up; `Retry-After` says for how long.",
}
_SCHEMES: Final = {
    "token": {
        "type": "oauth2",
        "flows": {"clientCredentials": {"tokenUrl": "/auth/token", "scopes": SCOPES}},
    },
    "client": {"type": "http", "scheme": "basic", "description": "A client's name and secret."},
}


def add_document(app: FastAPI) -> None:
    """Have each operation say its scope, and that it can be refused."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            made.setdefault("components", {})["securitySchemes"] = _SCHEMES
            for path, operations in made["paths"].items():
                for method in _METHODS:
                    if method in operations:
                        _complete(method.upper(), path, operations[method])
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    if method == "GET" and "application/json" in operation["responses"]["200"].get("content", {}):
        operation["responses"].setdefault("304", {"description": "It is what `If-None-Match` names."})
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        unreadable = {"description": "The body is not JSON at all.", **_problem_content()}
        operation["responses"].setdefault("400", unreadable)
    operation["responses"].setdefault(
        "503",
        {
            "description": "It took too long, or something it needs is away.",
            **_problem_content(),
        },
    )
    access = ACCESS.get((method, path))
    if access is None or access.scope is None:
        return
    operation["security"] = [{"token": [access.scope]}]
    limited = access.kind is not None
    wanted = {status: text for status, text in _COMMON.items() if status != 429 or limited}
    content = next(iter(problems(refused="").values()))["content"]
    for status, text in wanted.items():
        operation["responses"].setdefault(str(status), {"description": text, "content": content})


def _problem_content() -> dict[str, Any]:
    return {"content": next(iter(problems(refused="").values()))["content"]}
