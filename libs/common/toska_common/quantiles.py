"""Percentiles of a histogram: what lies between two bounds is taken to lie there evenly."""

from collections.abc import Sequence


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value that `share` (from 0 to 1) of what was counted does not exceed; `None` of nothing.

    Args:
        bounds: Upper bounds of the buckets, ascending, above 0.
        counts: How many each holds, not cumulative; one more than `bounds`, for what exceeds them all. Of that nothing
            is known but that it is more than the last bound, which is then the answer.
        share: Which part.
    """
    total = sum(counts)
    if not total:
        return None
    rank, below = share * total, 0
    for place, count in enumerate(counts[:-1]):
        if count and below + count >= rank:
            lower = bounds[place - 1] if place else 0.0
            return lower + (bounds[place] - lower) * (rank - below) / count
        below += count
    return bounds[-1]
