"""Sharing the lanes of an ordered group among its members.

RabbitMQ hands a lane to one of its consumers, the first that came, until that one goes. So the first member would have
all of them for ever. Each member therefore looks how many there are; one that has more than its share lets go of some,
which then belong to whoever waited longest, and queues up for them again. Pure.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

EVERY_S = 2.0


class Lane(Protocol):
    """A lane that this member consumes."""

    @property
    def busy(self) -> bool:
        """Whether it was handed to this member; one that has no events is nobody's burden."""
        ...

    @property
    def shedding(self) -> bool:
        """Whether it is being let go of."""
        ...


L = TypeVar("L", bound=Lane)


def to_shed(lanes: Sequence[L], members: int) -> list[L]:
    """Which lanes to let go of, so that `members` have about as many each."""
    busy = [lane for lane in lanes if lane.busy]
    share = -(-len(lanes) // max(1, members))
    leaving = sum(lane.shedding for lane in busy)
    spare = len(busy) - leaving - share
    return [lane for lane in busy if not lane.shedding][: max(0, spare)]
