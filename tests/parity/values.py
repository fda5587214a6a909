"""Comparing what the engine computed with what the oracle says."""

import math
from collections.abc import Sequence

from features.definitions import Feature
from features.entities import EntityFeature
from tests.parity.oracle import Value

# Where a value is a difference of nearly equal numbers, what rounding leaves of zero.
_ROUNDING = {"km": 1e-8, "km/h": 1e-6, "std": 1e-12}


def differences(
    features: Sequence[Feature | EntityFeature], computed: Sequence[float], expected: dict[str, Value]
) -> list[str]:
    """Each feature that is not what it should be, in words: counts exactly, others to 9 digits."""
    wrong = []
    for feature, found in zip(features, computed, strict=True):
        wanted = expected[feature.name]
        if wanted is None:
            fine = math.isnan(found)
        elif feature.unit == "events":
            fine = found == wanted
        else:
            fine = math.isclose(found, wanted, rel_tol=1e-9, abs_tol=_ROUNDING.get(feature.unit, 0.0))
        if not fine:
            wrong.append(f"{feature.name}: {found!r}, not {wanted!r}")
    return wrong
