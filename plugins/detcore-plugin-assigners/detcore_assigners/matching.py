"""The matching of the lowest total cost, where some pairs cannot be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped,unused-ignore]


def cheapest_matching(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the one-to-one matchings with the most pairs, the one of the lowest total cost.

    Args:
        cost: [n, m]. Pairs whose cost is not finite cannot be.

    Returns:
        Row and column of each pair, in order of the rows: min(n, m) pairs, fewer where some cannot be.
    """
    possible = np.isfinite(cost)
    if not possible.all():
        known = cost[possible]
        if not known.size:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        # so much that one such pair outweighs whatever all others could save
        span = float(known.max() - known.min())
        cost = np.where(possible, cost, known.max() + min(cost.shape) * span + 1)
    row, column = linear_sum_assignment(cost)
    kept = possible[row, column]
    return row[kept], column[kept]
