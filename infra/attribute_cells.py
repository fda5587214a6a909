"""An attribute's cell: a number where it is one, in as many digits as models look at."""

import math
import re
from decimal import Context, Decimal
from typing import Final

from infra.cells import Refusal, number

_DIGITS: Final = 10
"""A fraction of more digits than models look at could be taken for a card number."""
_ROUNDING: Final = Context(prec=_DIGITS)
_WHOLE: Final = 2**53
_USUAL: Final = 10.0**_DIGITS
_PLAIN: Final = re.compile(r"-?\d{1,9}(\.\d{1,20})?", re.ASCII).fullmatch
"""Text whose value is less than `_USUAL`, and whose digits in front of the point are no card number."""


def as_number(cell: object, decimal: str) -> object:
    """A number where the cell is one; what is infinite says nothing."""
    if isinstance(cell, bool):
        return cell
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    try:
        return number(cell, decimal)
    except Refusal:
        return repr(cell) if isinstance(cell, float) else cell


def rounded(value: Decimal) -> int | float:
    """A number as it is sent."""
    if value == value.to_integral_value() and abs(value) < _WHOLE:
        return int(value)
    # Of a large number every digit: cut ones could hide that it is a card's.
    return float(_ROUNDING.create_decimal(value)) if abs(value) < _USUAL else float(value)


def usual(cell: object, texts: bool) -> int | float | None:
    """What `as_number` and `rounded` make of a plain number; `None` for any other cell.

    A file of a million rows and 200 attributes has 200 million of them.

    Args:
        cell: Of the file.
        texts: Whether a number may be written as text, with a decimal point.

    >>> usual(2.0, False), usual(0.1 + 0.2, False), usual(float("nan"), False), usual("2", False)
    (2, 0.3, None, None)
    >>> usual("2", True), usual("-1.35980713367380", True), usual("2,5", True)
    (2, -1.359807134, None)
    """
    if type(cell) is str:
        if texts and _PLAIN(cell):
            value = float(_ROUNDING.create_decimal(cell))
            return rounded(Decimal(cell)) if value.is_integer() else value
        return None
    if type(cell) is float:
        if cell.is_integer():
            return int(cell) if -_WHOLE < cell < _WHOLE else None
        if 1e-9 < abs(cell) < _USUAL:
            return float(_ROUNDING.create_decimal(repr(cell)))
    elif type(cell) is int and -_WHOLE < cell < _WHOLE:
        return cell
    return None
