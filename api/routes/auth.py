"""Access tokens for programs: the OAuth 2.0 client credentials grant, RFC 6749 section 4.4."""

import base64
import binascii
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, unquote_plus

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.errors import problems
from api.gate import Security, count
from api.tokens import Principal

router = APIRouter(tags=["auth"])
_MOST_BYTES: Final = 8192
_NO_STORE: Final = {"Cache-Control": "no-store"}
_JWKS_AGE_S: Final = 30


class AccessToken(BaseModel):
    """An access token and what it is good for."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int
    scope: str


class TokenError(BaseModel):
    """Why there is no token, RFC 6749 section 5.2."""

    error: Literal[
        "invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type", "invalid_scope"
    ]
    error_description: str


class JsonWebKeySet(BaseModel):
    """Public keys, RFC 7517."""

    keys: list[dict[str, Any]]


class _Refused(Exception):
    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.status = error, description, status

    def answer(self) -> JSONResponse:
        headers = dict(_NO_STORE)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="tidegate"'
        body = {"error": self.error, "error_description": self.description}
        return JSONResponse(body, self.status, headers)


async def _security(request: Request) -> Security:
    found: Security = request.app.state.security
    return found


Secured = Annotated[Security, Depends(_security)]
_FORM: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "scope": {
                            "type": "string",
                            "description": "Of those the client has; all if left out.",
                        },
                        "client_id": {"type": "string", "description": "Unless HTTP Basic is used."},
                        "client_secret": {"type": "string", "description": "Unless HTTP Basic is used."},
                    },
                },
                "example": {"grant_type": "client_credentials", "scope": "inference"},
            }
        },
    },
    "security": [{"client": []}, {}],
}


@router.post(
    "/auth/token",
    response_model=AccessToken,
    openapi_extra=_FORM,
    responses={
        400: {"model": TokenError, "description": "The request is refused."},
        401: {"model": TokenError, "description": "No such client, or not its secret."},
        **problems(
            not_here="Tokens are not given out here.",
            too_long="The body is longer than any request is.",
            too_many="Too many tries.",
            away="Redis does not answer: tries cannot be counted.",
        ),
    },
)
async def token(request: Request, security: Secured) -> Any:
    """An access token for a client's name and secret, sent by HTTP Basic or in the form."""
    clients, issuer = security.clients, security.issuer
    if clients is None or issuer is None:
        raise HTTPException(404, "tokens are not given out here")
    try:
        form = await _form(request)
        client_id, secret = _credentials(request, form)
        who = client_id if clients.get(client_id) is not None else "?"
        address = request.client.host if request.client else "?"
        if security.limits is not None:
            # By address too: who guesses must not lock out the client whose name they use.
            await count(request, security.limits, "auth", f"{address}:{who}", "POST /auth/token")
        client = await clients.authenticate(client_id, secret)
        if security.auditor is not None and who != "?":
            security.auditor.token(who, address, "refused" if client is None else "given")
        if client is None:
            raise _Refused("invalid_client", "no such client, or not its secret", 401)
        if form.get("grant_type") != "client_credentials":
            kind = "unsupported_grant_type" if form.get("grant_type") else "invalid_request"
            raise _Refused(kind, "grant_type must be client_credentials")
        wanted = frozenset(form.get("scope", "").split()) or client.scopes
        if not wanted <= client.scopes:
            raise _Refused("invalid_scope", "the client does not have all of these scopes")
    except _Refused as refused:
        return refused.answer()
    made = issuer.issue(Principal(client.client_id, client.tenant, wanted))
    body = AccessToken(access_token=made, expires_in=issuer.ttl_s, scope=" ".join(sorted(wanted)))
    return JSONResponse(body.model_dump(), headers=_NO_STORE)


@router.get(
    "/.well-known/jwks.json",
    response_model=JsonWebKeySet,
    responses=problems(not_here="Tokens are not given out here."),
)
async def jwks(security: Secured) -> JSONResponse:
    """Public keys that access tokens are signed with."""
    if security.public_keys is None:
        raise HTTPException(404, "tokens are not given out here")
    headers = {"Cache-Control": f"public, max-age={_JWKS_AGE_S}"}
    return JSONResponse(dict(security.public_keys()), headers=headers)


async def _form(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise _Refused("invalid_request", "the body must be application/x-www-form-urlencoded")
    body = await request.body()
    if len(body) > _MOST_BYTES:
        raise _Refused("invalid_request", "the form is too long")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise _Refused("invalid_request", "the form cannot be read") from None
    if any(len(values) > 1 for values in fields.values()):
        raise _Refused("invalid_request", "a field is there twice")
    return {name: values[0] for name, values in fields.items()}


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    header = request.headers.get("authorization")
    in_form = "client_id" in form or "client_secret" in form
    if header is None:
        if not form.get("client_id") or not form.get("client_secret"):
            raise _Refused("invalid_client", "the client does not say who it is", 401)
        return form["client_id"], form["client_secret"]
    method, _, encoded = header.partition(" ")
    if method.lower() != "basic":
        raise _Refused("invalid_client", "only HTTP Basic is understood in this header", 401)
    if "client_secret" in form:
        raise _Refused("invalid_request", "the client says who it is in two ways")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise _Refused("invalid_client", "the header cannot be read", 401) from None
    name, colon, secret = text.partition(":")
    client_id = unquote_plus(name)
    if not colon or (in_form and form["client_id"] != client_id):
        raise _Refused("invalid_client", "the header cannot be read", 401)
    return client_id, unquote_plus(secret)
