"""What this service is, and how it is in detail."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.deps import Given
from api.errors import kind_of, told
from api.shapes import stored_until
from schemas.errors import DependencyError, TidegateError
from schemas.fields import Moment

router = APIRouter(tags=["health"])
_log = structlog.get_logger()
_STARTED = time.monotonic()
_LIMIT_S = 2.0


class About(BaseModel):
    """The service."""

    name: Literal["tidegate"] = "tidegate"
    version: str
    documentation: str = Field(examples=["/docs"])
    openapi: str = Field(examples=["/openapi.json"])


class Detail(BaseModel):
    """One thing the service uses."""

    status: Literal["up", "down", "absent"] = Field(description="absent: not set up here.")
    milliseconds: float | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class Details(BaseModel):
    """The service and everything it uses."""

    status: Literal["up", "degraded", "down"] = Field(
        description="down: nothing can be answered; degraded: something cannot."
    )
    now: Moment
    up_s: float
    declarations: str
    parts: dict[str, Detail]


@router.get("/")
async def about() -> About:
    """What answers here, and where its documentation is."""
    return About(version="0.1.0", documentation="/docs", openapi="/openapi.json")


@router.get("/health/detailed", responses={503: {"model": Details, "description": "Redis is down."}})
async def detailed(given: Given, response: Response) -> Details:
    """How everything is that answers are made from: Redis, index, event log, live feed, models."""

    async def redis() -> Mapping[str, Any]:
        await given.usable()
        return {}

    async def index() -> Mapping[str, Any]:
        return {**await given.require_index().status(), **await stored_until(given.events)}

    asked = {"redis": redis} | ({"event_log": index} if given.index is not None else {})
    found = await asyncio.gather(*(_asked(ask) for ask in asked.values()))
    parts = dict(zip(asked, found, strict=True))
    parts.setdefault("event_log", Detail(status="absent"))
    if given.feed is None:
        parts["live_feed"] = Detail(status="absent")
    else:
        facts = dict(given.feed.status())
        parts["live_feed"] = Detail(status="up" if facts.pop("up") else "down", facts=facts)
    for model in (given.models.fraud, given.models.churn, given.segments):
        if model is not None:
            facts = {"version": model.card.version, "created_at": model.card.created_at}
            parts[f"model_{model.card.name}"] = Detail(status="up", facts=facts)
    if given.segments is None:
        parts["model_segments"] = Detail(status="absent")
    down = [name for name, part in parts.items() if part.status == "down"]
    if "redis" in down:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return Details(
        status="down" if "redis" in down else "degraded" if down else "up",
        now=given.now(),
        up_s=round(time.monotonic() - _STARTED, 1),
        declarations=given.models.engine.hash,
        parts=parts,
    )


async def _asked(ask: Callable[[], Awaitable[Mapping[str, Any]]]) -> Detail:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(_LIMIT_S):
            facts = dict(await ask())
    except (TidegateError, TimeoutError) as error:
        level = "warning" if isinstance(error, DependencyError | TimeoutError) else "error"
        getattr(_log, level)("a part is down", error=str(error))
        return Detail(status="down", facts={"problem": kind_of(error), "reason": told(error)})
    return Detail(status="up", milliseconds=round((time.perf_counter() - started) * 1000, 2), facts=facts)
