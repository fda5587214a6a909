"""Amounts of several currencies in one file: nothing converts them, so what sums them up has to say so."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from features.codes import letters_of
from features.record import Records

Currencies = Mapping[str, int]
"""Transactions by currency, most first."""

_NAMED: Final = 5
_WHAT_TO_DO: Final = (
    "convert the amounts in the file before, or take one currency alone (in the mapping, skip_if with "
    "not_equals on its column)"
)


def counted(records: Records) -> dict[str, int]:
    """How many transactions are in which currency.

    Args:
        records: `(n,)`.
    """
    codes, counts = np.unique(records["currency"], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {letters_of(int(codes[i])): int(counts[i]) for i in order}


def mixed(currencies: Currencies, what: str) -> str | None:
    """What is to be said where there are several; `None` where there are not.

    Args:
        currencies: Those of the transactions.
        what: Adds them up.

    >>> mixed({"EUR": 10}, "a sum")
    >>> mixed({"EUR": 9, "USD": 1}, "a sum").split(": ")[0]
    'amounts are of 2 currencies (EUR 90 %, USD 10 %) and are not converted'
    """
    if len(currencies) < 2:
        return None
    total = sum(currencies.values())
    named = [f"{code} {_percent(n / total)}" for code, n in list(currencies.items())[:_NAMED]]
    if len(currencies) > _NAMED:
        named.append("...")
    return (
        f"amounts are of {len(currencies)} currencies ({', '.join(named)}) and are not converted: {what} add "
        f"them up as if they were one; {_WHAT_TO_DO}"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else "under 1 %"
