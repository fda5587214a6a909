"""Whether the service lives, is ready, and how it is."""

import time
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from api.deps import Given
from api.errors import AWAY_WORDS, problems, told

_log = structlog.get_logger()
router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """The service can do its work."""

    status: Literal["ready"] = "ready"


class Part(BaseModel):
    """One thing the service needs."""

    status: Literal["up", "down"]
    detail: str
    milliseconds: float | None = None


class Health(BaseModel):
    """The service and what it needs."""

    status: Literal["up", "down"]
    features: str
    parts: dict[str, Part]


@router.get("/live")
async def live() -> Alive:
    """Answers while the process runs; asks nobody else."""
    return Alive()


@router.get(
    "/ready",
    responses=problems(
        away="Redis does not answer, lacks rights or histories, or counts other entities than this program."
    ),
)
async def ready(given: Given) -> Ready:
    """Answers 200 while requests can be served."""
    await given.usable()
    return Ready()


@router.get("/health", responses={503: {"model": Health, "description": "A part is down."}})
async def health(given: Given, response: Response) -> Health:
    """How each part is; 503 where one is down."""
    started = time.perf_counter()
    try:
        await given.usable()
        redis = Part(status="up", detail="answers", milliseconds=(time.perf_counter() - started) * 1000)
    except Exception as error:  # any failure is what this route reports
        _log.warning("Redis is down", error=str(error))
        words = told(error)
        if words == AWAY_WORDS:
            words = "does not answer; the log of the API says why"
        redis = Part(status="down", detail=words)
        response.headers["Retry-After"] = "1"
    models = {
        m.card.name: Part(status="up", detail=f"{m.card.version} of {m.card.created_at}")
        for m in (given.models.fraud, given.models.churn)
    }
    response.status_code = 200 if redis.status == "up" else 503
    return Health(status=redis.status, features=given.models.engine.hash, parts={"redis": redis, **models})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus metrics; with exemplars for who accepts OpenMetrics."""
    registry: Any = request.app.state.registry
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type)
