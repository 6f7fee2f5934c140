"""All cases, by theme. A new policy brings its own module, and its cases a place in `CASES`."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import (
    answers,
    balancing,
    bodies,
    browsers,
    forwarding,
    limits,
    matching,
    refusals,
    resilience,
    rewriting,
    upgrades,
)

CASES: Sequence[Case] = (
    *matching.CASES,
    *forwarding.CASES,
    *bodies.CASES,
    *answers.CASES,
    *rewriting.CASES,
    *balancing.CASES,
    *resilience.CASES,
    *limits.CASES,
    *browsers.CASES,
    *upgrades.CASES,
    *refusals.CASES,
)
