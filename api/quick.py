"""The lookup that is asked for thousands of times a second, without what FastAPI does for each request.

Only its plainest form: a GET without parameters of an id without escapes. Whatever else is asked goes to the
documented route, which has the same answer made by the same function. Login, scopes, limits, audit and errors
are those of every route: `authorise` is called, and all middleware and error handlers are around it.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from api.deps import Services, services
from api.gate import authorise
from schemas.card_number import is_card_number

_ID: Final = r"([A-Za-z0-9._:-]{1,64})"
Answer = Callable[[Services, str], Awaitable[bytes]]


class QuickLookup(BaseRoute):
    """A route of one customer.

    Args:
        path_format: As the documented route has it: metrics, scopes and limits go by it.
        answer: Makes the JSON.
    """

    def __init__(self, path_format: str, answer: Answer) -> None:
        self.path_format = self.path = path_format
        self.methods = {"GET"}
        self._answer = answer
        before, after = path_format.split("{customer_id}")
        self._plain = re.compile(re.escape(before) + _ID + re.escape(after))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is of the plainest form."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return Match.NONE, {}
        found = self._plain.fullmatch(scope["path"])
        if found is None or scope.get("root_path") or is_card_number(found[1]):
            return Match.NONE, {}
        return Match.FULL, {"route": self, "endpoint": self._answer, "path_params": {"customer_id": found[1]}}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        connection = HTTPConnection(scope)
        await authorise(connection)
        body = await self._answer(await services(connection), scope["path_params"]["customer_id"])
        headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
