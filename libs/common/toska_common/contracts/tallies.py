"""What gateways tell the router of requests under watch: those that a step of a rollout, or an experiment, concerns.

A route under watch carries a token. A gateway counts what it serves under each token from 0, and reports the *sums*
with its polls: a report that is repeated counts once, one that is lost is made up for by the next, and whichever router
hears them, the newest of each gateway is the truth. A gateway that is started anew is another one, with new sums.
"""

from collections.abc import Mapping

from pydantic import Field

from toska_common.contracts import Contract

MAX_TALLIES = 64
"""In one report, and so of routes under watch at a time."""
MAX_CELLS = 16
MAX_REASONS = 64


class CellCounts(Contract):
    """What came of the requests under a token that were sent to one cluster."""

    requests: int = Field(default=0, ge=0, description="That came to an end, without those that clients broke off")
    failed: int = Field(
        default=0, ge=0, description="Of these: answered with 5xx or cut off, or saved by a retry or a fallback alone"
    )
    gone: int = Field(default=0, ge=0, description="Requests that clients broke off, which are not counted above")
    reasons: Mapping[str, int] = Field(
        default_factory=dict[str, int], max_length=MAX_REASONS, description="Why they failed: a status, or a code"
    )
    buckets: Mapping[int, int] = Field(
        default_factory=dict[int, int],
        max_length=128,
        description="Latencies, by place in `toska_common.latencies.BOUNDS_US`; one more than that for the rest",
    )


class WholeCounts(Contract):
    """What came of everything that a gateway has served since a token came into force, whatever the route."""

    requests: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0, description="Answered with 5xx, those aborted on purpose included")
    aborted: int = Field(default=0, ge=0, description="Aborted on purpose")


class Tally(Contract):
    """Everything under one token."""

    token: str = Field(max_length=200)
    cells: Mapping[str, CellCounts] = Field(
        default_factory=dict[str, CellCounts], max_length=MAX_CELLS, description="By cluster"
    )
    whole: WholeCounts = WholeCounts()


class TallyReport(Contract):
    """What one gateway has counted until now."""

    epoch: str = Field(max_length=64, description="The gateway since its last start")
    sequence: int = Field(ge=0, description="Rises with each report of an epoch")
    tallies: tuple[Tally, ...] = Field(default=(), max_length=MAX_TALLIES)
