"""One set of models and the engine they were trained on: a chunk is scored by exactly one set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from features.engine import Engine
from models.anomaly import AnomalyModel
from models.roles import Challenger, model_for
from models.tree import TreeModel
from schemas.errors import ModelError


@dataclass(frozen=True, slots=True)
class Models:
    """One set of models and the engine they were trained on: a chunk is scored by exactly one set.

    Attributes:
        fraud: The champion.
        churn: The champion.
        challengers: By name.
        shadows: By name; their scores are never seen outside `scores.shadow`.
        identity: Names the set (`models.roles.identity`); empty for one that was put together by hand.
        anomaly: Says how unusual each transaction is; `None` where none was trained.

    Raises:
        ModelError: A model was trained on other declarations than the engine's.
    """

    engine: Engine
    fraud: TreeModel
    churn: TreeModel
    challengers: Mapping[str, Challenger] = field(default_factory=dict)
    shadows: Mapping[str, Sequence[TreeModel]] = field(default_factory=dict)
    identity: str = ""
    anomaly: AnomalyModel | None = None

    def __post_init__(self) -> None:
        for model in self.all():
            if model.card.features_hash != self.engine.hash:
                raise ModelError(
                    f"model {model.card.name} {model.card.version} was trained on feature declarations "
                    f"{model.card.features_hash}, this program runs {self.engine.hash}: train it again "
                    "(tidegate train), set TIDEGATE_ENTITIES and TIDEGATE_ATTRIBUTES as they were, or run "
                    "the version that trained it"
                )

    def all(self) -> list[TreeModel | AnomalyModel]:
        """Every model of the set, champions first."""
        shadows = [model for models in self.shadows.values() for model in models]
        anomaly = [] if self.anomaly is None else [self.anomaly]
        return [self.fraud, self.churn, *anomaly, *(c.model for c in self.challengers.values()), *shadows]

    def fraud_for(self, customer_id: str) -> TreeModel:
        """The fraud model that scores a customer."""
        return model_for(self.fraud, self.challengers.get("fraud"), customer_id)

    def churn_for(self, customer_id: str) -> TreeModel:
        """The churn model that scores a customer."""
        return model_for(self.churn, self.challengers.get("churn"), customer_id)
