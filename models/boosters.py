"""XGBoost, imported without scikit-learn.

XGBoost imports scikit-learn where it is installed, only to offer its own models in that library's form.
Nobody here asks for them, and the import takes a third of the time in which a worker starts.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """A module that cannot be imported meanwhile; one that is imported already stays."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _absent("sklearn"):
    import xgboost

__all__ = ["xgboost"]
