import pytest

from features.entity_features import ENTITY_FEATURES, entity_features
from schemas.errors import ConfigError


def test_entities_are_chosen_by_name_in_the_order_of_the_catalogue():
    assert entity_features("counterparty,device, merchant") == ENTITY_FEATURES
    assert {f.entity for f in entity_features("merchant")} == {"merchant"}
    assert entity_features("") == ()


def test_entity_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="there is no entity terminal: choose from merchant, device"):
        entity_features("merchant,terminal")
