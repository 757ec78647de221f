"""Whether a published double is within the promised distance of the exact result, decided in integers alone.

Each inequality is multiplied out until both sides are integers, roots by comparing squares: no rounding anywhere. A
double is the ratio `top / bottom`; `U` = 1e8 units per price; e = 1e-9.
"""

from __future__ import annotations

import math

from tests.reference.acceptance import UNITS_PER_PRICE
from tests.reference.model import WindowStats

_SHARP: int = 10**9
"""1 / the relative tolerance"""
_LOW_SQUARE = (_SHARP - 1) * (_SHARP - 1)
_HIGH_SQUARE = (_SHARP + 1) * (_SHARP + 1)
_MEAN_ROUNDING: int = 2**51
"""1 / (4·2⁻⁵³): what rounding the mean to a double may cost a z-score, in units of mean / deviation"""
_Z_SCALE = _SHARP * _MEAN_ROUNDING


def average_is_right(published: float, stats: WindowStats) -> bool:
    """|published − mean| ≤ e·mean."""
    if not math.isfinite(published):
        return False
    top, bottom = published.as_integer_ratio()
    exact = stats.total * bottom
    return abs(top * stats.size * UNITS_PER_PRICE - exact) * _SHARP <= exact


def deviation_is_right(published: float | None, stats: WindowStats) -> bool:
    """None below two prices, +0.0 when all are equal, otherwise |published − deviation| ≤ e·deviation."""
    if stats.size < 2 or published is None:
        return stats.size < 2 and published is None
    if stats.spread == 0:
        return published == 0.0 and math.copysign(1.0, published) > 0
    if not math.isfinite(published) or published <= 0:
        return False
    top, bottom = published.as_integer_ratio()
    scaled = top * UNITS_PER_PRICE * _SHARP
    square = scaled * scaled * stats.size * (stats.size - 1)
    exact = stats.spread * bottom * bottom
    return exact * _LOW_SQUARE <= square <= exact * _HIGH_SQUARE


def zscore_is_right(published: float | None, units: int, stats: WindowStats) -> bool:
    """None when the deviation is None or 0, otherwise |published − z| ≤ e·|z| + 4·2⁻⁵³·mean/deviation.

    With D = size·units − total and R = √(size·spread / (size − 1)), z = D/R and mean/deviation = total/R, so the
    promise reads D − T ≤ published·R ≤ D + T with T = e·|D| + 4·2⁻⁵³·total. x·|x| keeps the order and loses the root.
    """
    if stats.spread == 0 or published is None:
        return stats.spread == 0 and published is None
    if not math.isfinite(published):
        return False
    top, bottom = published.as_integer_ratio()
    distance = stats.size * units - stats.total
    tolerance = abs(distance) * _MEAN_ROUNDING + stats.total * _SHARP
    low = _signed_square(distance * _Z_SCALE - tolerance)
    high = _signed_square(distance * _Z_SCALE + tolerance)
    square = _signed_square(top * _Z_SCALE) * stats.size * stats.spread
    scale = bottom * bottom * (stats.size - 1)
    return low * scale <= square <= high * scale


def _signed_square(number: int) -> int:
    return number * abs(number)
