"""How sure one can be of a share after so many trials, however often one looks.

A rollout looks at its counts every second and acts the first time they are bad enough. An ordinary confidence interval
is wrong for that: it is right 95 times of 100 if it is looked at once. These are confidence *sequences*: with the
probability given, the share lies within them at every look at once, from the first request on.

With a prior of Beta(1/2, 1/2) over the share p, the ratio of the mixture's likelihood to that of the true p is a
martingale that begins at 1. By Ville's inequality it ever reaches 1/alpha with a probability of alpha at most; so those
p for which it has are ruled out (H. Robbins, Ann. Math. Stat. 41(5), 1970; the mixture is Krichevsky's and Trofimov's).
It holds for few trials as for many, with no failure as with nothing else, and assumes no normal distribution.
"""

from math import lgamma, log, log1p
from typing import Final

_PRIOR: Final = 0.5
_ROUNDS: Final = 50
"""Halvings of an interval within [0, 1]: to 1e-15."""


def lower_bound(hits: int, trials: int, alpha: float) -> float:
    """The share is no lower than this, but for a chance of `alpha` over all looks; 0 without trials."""
    if not hits:
        return 0.0
    evidence = _mixture(hits, trials) + log(alpha)
    low, high = 0.0, hits / trials
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if _likelihood(hits, trials, middle) <= evidence else (low, middle)
    return low


def upper_bound(hits: int, trials: int, alpha: float) -> float:
    """The share is no higher than this, but for a chance of `alpha` over all looks; 1 without trials."""
    return 1.0 - lower_bound(trials - hits, trials, alpha)


def _likelihood(hits: int, trials: int, share: float) -> float:
    """The logarithm of the probability of these trials, in their order."""
    if share <= 0.0:
        return float("-inf")
    missed = trials - hits
    return hits * log(share) + (missed * log1p(-share) if missed else 0.0)


def _mixture(hits: int, trials: int) -> float:
    """The logarithm of their probability, if nothing is known of the share but the prior."""
    return (
        lgamma(_PRIOR + hits)
        + lgamma(_PRIOR + trials - hits)
        - lgamma(2 * _PRIOR + trials)
        - 2 * lgamma(_PRIOR)
        + lgamma(2 * _PRIOR)
    )
