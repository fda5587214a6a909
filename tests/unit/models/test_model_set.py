from dataclasses import replace

import pytest

from features.lifetime import customer_names
from models.model_set import Models
from models.tree import TreeModel
from schemas.errors import ModelError


def test_a_model_of_other_declarations_is_refused(models):
    for name in ("fraud", "churn"):
        own = getattr(models, name)
        other = replace(own.card, features_hash="0123456789abcdef")
        stranger = TreeModel(other, own.trees, customer_names(models.engine))
        parts = {"fraud": models.fraud, "churn": models.churn} | {name: stranger}
        with pytest.raises(ModelError) as refused:
            Models(models.engine, **parts)
        text = str(refused.value)
        assert f"model {name} v1" in text
        assert "0123456789abcdef" in text
        assert models.engine.hash in text
        assert "train it again" in text
