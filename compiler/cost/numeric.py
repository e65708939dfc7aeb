"""Arithmetic that means the same on one number and on a numpy array of many layouts.

`plan` prices one layout with plain numbers and never imports numpy; the search prices thousands at once with the very
same formulas. So formulas use operators and these few functions, and no `if` on a number.
"""

import math
from itertools import pairwise
from typing import Any

Number = Any  # int, float, bool, or a numpy array of them


def _is_array(*values: Number) -> bool:
    return any(hasattr(value, "__array__") for value in values)


def maximum(first: Number, *rest: Number) -> Number:
    """The largest, element by element."""
    if not _is_array(first, *rest):
        return max(first, *rest) if rest else first
    import numpy as np

    for value in rest:
        first = np.maximum(first, value)
    return first


def minimum(first: Number, *rest: Number) -> Number:
    """The smallest, element by element."""
    if not _is_array(first, *rest):
        return min(first, *rest) if rest else first
    import numpy as np

    for value in rest:
        first = np.minimum(first, value)
    return first


def where(condition: Number, then: Number, otherwise: Number) -> Number:
    """`then` where the condition holds. Both are computed: guard divisions with `maximum`."""
    if not _is_array(condition, then, otherwise):
        return then if condition else otherwise
    import numpy as np

    return np.where(condition, then, otherwise)


def ceil_divide(number: Number, by: Number) -> Number:
    """The whole number of parts of size `by` that hold `number`."""
    return -(-number // by)


def log2(number: Number) -> Number:
    """The logarithm to base two of a number, or of one if it is less."""
    if not _is_array(number):
        return math.log2(max(number, 1))
    import numpy as np

    return np.log2(np.maximum(number, 1))


def interpolate(at: Number, points: tuple[tuple[float, float], ...]) -> Number:
    """The curve through (x, y) points with rising x, linear in log x between them and level beyond both ends."""
    if _is_array(at):
        import numpy as np

        return np.interp(np.log(np.maximum(at, 1e-300)), [math.log(x) for x, _ in points], [y for _, y in points])
    if at <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * math.log(at / x0) / math.log(x1 / x0)
    return points[-1][1]
