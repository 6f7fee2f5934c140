"""All cases, by theme. A new policy brings its own module, and its cases a place in `CASES`."""

from collections.abc import Sequence

from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import (
    answers,
    attempts,
    balancing,
    bodies,
    browsers,
    caching,
    compression,
    conditions,
    forwarding,
    limits,
    matching,
    mirroring,
    refusals,
    resilience,
    rewriting,
    sharing,
    tokens,
    upgrades,
    versions,
)

CASES: Sequence[Case] = (
    *matching.CASES,
    *conditions.CASES,
    *sharing.CASES,
    *forwarding.CASES,
    *bodies.CASES,
    *answers.CASES,
    *rewriting.CASES,
    *balancing.CASES,
    *resilience.CASES,
    *attempts.CASES,
    *limits.CASES,
    *browsers.CASES,
    *tokens.CASES,
    *versions.CASES,
    *mirroring.CASES,
    *caching.CASES,
    *compression.CASES,
    *upgrades.CASES,
    *refusals.CASES,
)
