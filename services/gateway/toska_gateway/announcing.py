"""Tells the mesh's events of circuits that open and close in this gateway's workers."""

from collections.abc import Callable, Mapping
from typing import Any

from toska_common.contracts.events import BreakerClosed, BreakerEvent, BreakerHalfOpened, BreakerOpened
from toska_common.events.bus import EventBus

Tell = Callable[[str, Mapping[str, Any]], None]
"""Told of a line that a worker writes to the log: its event and fields."""

_TYPES: Mapping[str, type[BreakerEvent]] = {
    "open": BreakerOpened,
    "half-open": BreakerHalfOpened,
    "closed": BreakerClosed,
}


def announcer(bus: EventBus, gateway: str) -> Tell:
    """For the data plane: offers what others want to know to the bus."""

    def tell(event: str, fields: Mapping[str, Any]) -> None:
        if event == "circuit_changed":
            cluster = fields["cluster"]
            payload = _TYPES[fields["after"]](gateway=gateway, cluster=cluster, before=fields["before"])
            bus.offer(payload, key=f"{gateway}/{cluster}", subject=cluster)

    return tell
