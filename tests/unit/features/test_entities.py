from dataclasses import replace

import pytest

from features.entities import EntityFeature, EntityOp, check, declaration_hash
from schemas.errors import ConfigError

GOOD = EntityFeature("merchant_txn_count_1d", "merchant", EntityOp.COUNT, "1d", "7d", "events", "Some.")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "Merchant"}, "lower-case"),
        ({"entity": "terminal"}, "entity must be one of merchant, device"),
        ({"window": "1"}, "is not a duration"),
        ({"window": "90m"}, "whole hours"),
        ({"delay": "30m"}, "whole hours"),
        ({"window": "84d"}, r"longer than what is kept \(90d\)"),
        ({"op": EntityOp.FRAUD_SHARE, "window": "84d"}, r"longer than what is kept \(90d\)"),
        ({"op": EntityOp.FRAUD_COUNT, "window": "366d"}, r"longer than what is kept \(372d\)"),
        ({"op": EntityOp.CUSTOMERS}, "customers of a merchant are not told apart"),
    ],
)
def test_declaration_that_cannot_work_is_refused_with_its_name_and_the_reason(change, reason):
    wrong = replace(GOOD, **change)
    with pytest.raises(ConfigError, match=rf"{wrong.name}.*{reason}"):
        check([wrong])


def test_same_name_twice_is_refused():
    with pytest.raises(ConfigError, match="declared twice"):
        check([GOOD, GOOD])


def test_hash_is_of_what_is_computed_and_not_of_words():
    assert declaration_hash([GOOD]) == declaration_hash([replace(GOOD, meaning="Else.", phrase="x")])
    assert declaration_hash([GOOD]) != declaration_hash([replace(GOOD, delay="8d")])
