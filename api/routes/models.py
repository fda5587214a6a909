"""Which models are in use, and taking new ones into use without a restart."""

import asyncio
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.deps import Given, Services
from api.errors import problems
from api.idempotency import idempotent
from models.tree import ModelCard
from schemas.fields import Moment
from schemas.score import Role

router = APIRouter(
    prefix="/models",
    tags=["models"],
    responses=problems(away="A model cannot be used; what was in use before still is."),
)


class ModelOut(BaseModel):
    """A model in use."""

    name: str = Field(examples=["fraud"])
    version: str = Field(examples=["v3"])
    role: Role = Field(description="A challenger answers for a share of the customers.")
    created_at: str
    declarations: str = Field(description="Identity of the feature declarations it was trained on.")
    thresholds: dict[str, float]
    metrics: dict[str, Any]
    data: dict[str, Any] = Field(description="What it was trained on.")


class ModelStatus(BaseModel):
    """The models that this process answers with."""

    declarations: str
    loaded_at: Moment | None
    models: list[ModelOut]


class Reloaded(ModelStatus):
    """The models in use after loading."""

    changed: list[str] = Field(description="Names of models with other versions or roles now.")


def _cards(given: Services) -> list[tuple[Role, ModelCard]]:
    cards: list[tuple[Role, ModelCard]] = [(model.role, model.card) for model in given.models.all()]
    return [*cards, ("champion", given.segments.card)] if given.segments is not None else cards


def _versions(given: Services) -> dict[str, list[tuple[Role, str]]]:
    versions: dict[str, list[tuple[Role, str]]] = {}
    for role, card in _cards(given):
        versions.setdefault(card.name, []).append((role, card.version))
    return versions


def _status(given: Services) -> dict[str, Any]:
    return {
        "declarations": given.models.engine.hash,
        "loaded_at": given.loaded_at,
        "models": [
            ModelOut(
                name=card.name,
                version=card.version,
                role=role,
                created_at=card.created_at,
                declarations=card.features_hash,
                thresholds=dict(card.thresholds),
                metrics=dict(card.metrics),
                data=dict(card.data),
            )
            for role, card in _cards(given)
        ],
    }


@router.get("/status")
async def status(given: Given) -> ModelStatus:
    """Versions, thresholds, measurements and origin of the models in use."""
    return ModelStatus(**_status(given))


@router.post(
    "/reload",
    dependencies=[Depends(idempotent)],
    responses=problems(
        conflict="The same key is being worked on.", refused="The key was used for another request."
    ),
)
async def reload(given: Given) -> Reloaded:
    """Take what the registry says is in use, in this process and at once; requests under way keep theirs.

    Every process also looks by itself, every `TIDEGATE_MODELS_WATCH_S`. Models that cannot be used are
    refused and change nothing; nor do segments, which nothing else waits for.
    """
    before = _versions(given)
    if given.reload is not None:
        given.models, given.segments, refused = await asyncio.to_thread(given.reload)
        given.loaded_at = given.now()
        if refused is not None:
            raise refused
    now = _versions(given)
    changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    return Reloaded(**_status(given), changed=changed)
