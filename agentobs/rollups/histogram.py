"""Histograms with bins as wide as one per cent, many in one number.

A bin ends at a power of 1.01, so that no two whole numbers in it differ by more than one per cent;
zero, and what lies below, has a bin of its own. A histogram is one NUMERIC with twelve decimal
digits a bin, so that `sum()` merges any number of them in one pass.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Integer, Numeric, Text, case, cast, func, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

RATIO = 1.01
DIGITS = 12
"""Of a bin: none of them ever holds a million million rows."""

_BIN = re.compile(f".{{{DIGITS}}}")
# The logarithm of an edge may come out a little above the whole number that it is.
_TOLERANCE = 1e-9


def histogram_of(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the aggregate: the histogram of a whole number's values, NULL where there are none."""
    # A text of a few digits is read as a number faster than a power of ten is raised.
    digits = cast(_bin_of(value) * DIGITS, Text)
    return func.sum(cast(literal("1e", Text).concat(digits), Numeric))


def _bin_of(value: ColumnElement[Any]) -> ColumnElement[int]:
    steps = func.ln(cast(value, Double)) / literal(math.log(RATIO), Double)
    above = 1 + cast(func.ceil(steps - literal(_TOLERANCE, Double)), Integer)
    return case((value <= 0, 0), else_=above)


def percentiles_of(histogram: str, shares: Sequence[float]) -> list[int]:
    """Return the percentiles of a histogram that is not empty, each within one per cent.

    As `percentile_disc` has it: the least value that so large a share of values does not exceed.
    `histogram` is the text of the number.
    """
    least, rows = _bins(histogram)
    seen = list(accumulate(rows))
    ranks = (max(1, math.ceil(share * seen[-1])) for share in shares)
    return [_value_of(least + bisect_left(seen, rank)) for rank in ranks]


def _bins(histogram: str) -> tuple[int, list[int]]:
    """Return the first bin that has rows, and the rows of each bin from there on."""
    # Never as one number: Python refuses to read one of so many digits.
    empty = (len(histogram) - len(histogram.rstrip("0"))) // DIGITS
    digits = histogram[: len(histogram) - empty * DIGITS]
    whole = digits.zfill(-(-len(digits) // DIGITS) * DIGITS)
    return empty, [int(rows) for rows in _BIN.findall(whole)][::-1]


def _value_of(number: int) -> int:
    """Return the value that stands for a bin: no value in it is further off than one per cent."""
    if number == 0:
        return 0
    first = math.floor(RATIO ** (number - 2) * (1 + _TOLERANCE)) + 1
    last = math.floor(RATIO ** (number - 1) * (1 + _TOLERANCE))
    return round(2 * first * last / (first + last))
