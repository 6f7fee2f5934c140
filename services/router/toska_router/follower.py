"""Follows the registry: the names of all services, and the instances of each that can be routed to.

One blocking query for the names and one for each service; Consul has no single one that tells instances with their
health and metadata. What the registry says becomes `Instances`; whether it can be reached is said separately.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from functools import partial

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import TypeAdapter, ValidationError
from toska_common.clients.consul import ConsulClient, ServiceEntry
from toska_common.clients.consul_watch import Sleep
from toska_common.clock import Clock
from toska_common.contracts.names import ServiceName, is_reserved
from toska_common.contracts.router import RegistryStatus
from toska_common.errors import MeshError

from toska_router.instances import Instances

log = structlog.get_logger(__name__)

WAIT = timedelta(minutes=1)
"""How long one blocking query waits: also how long a connection that died silently can go unnoticed."""
_EXPIRY_LOOKED_AT = timedelta(milliseconds=250)

_NAMES: TypeAdapter[str] = TypeAdapter(ServiceName)


class RegistryFollower:
    """Keeps `instances` as the registry has them.

    Args:
        instances: What is kept.
        wanted: Names of services that clusters follow, the mesh's own included.
        on_change: Called when the instances are different.
        on_complete: Called once, when every service has been seen.
        clock: Of the grace after outages.

    Attributes:
        sleep: The pause after a query that failed.
    """

    def __init__(
        self,
        instances: Instances,
        *,
        wanted: Callable[[], Collection[str]],
        on_change: Callable[[], None],
        on_complete: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._instances = instances
        self._wanted = wanted
        self._on_change = on_change
        self._on_complete = on_complete
        self._clock = clock
        self.sleep: Sleep = anyio.sleep
        self._listed: frozenset[str] | None = None
        self._watches: dict[str, anyio.CancelScope] = {}
        self._unseen: set[str] = set()
        self._complete = False
        self._outages: dict[str, str] = {}
        self._consul: ConsulClient | None = None
        self._group: TaskGroup | None = None

    @property
    def status(self) -> RegistryStatus:
        """Whether the registry answers."""
        error = next(iter(self._outages.values()), "")
        connected = self._listed is not None and not self._outages
        return RegistryStatus(connected=connected, error=error, services=len(self._instances))

    @property
    def complete(self) -> bool:
        """Whether every service has been seen."""
        return self._complete

    @property
    def unseen(self) -> list[str]:
        """What the first snapshot still waits for."""
        return ["the list of services"] if self._listed is None else sorted(self._unseen)

    async def run(self, consul: ConsulClient) -> None:
        """Follow the registry for ever."""
        async with anyio.create_task_group() as group:
            self._consul, self._group = consul, group
            group.start_soon(self._expire)
            note = partial(self._note_outage, "")
            async for names in consul.watch_services(wait=WAIT, on_outage=note, sleep=self.sleep):
                self._listed = frozenset(name for name in names if _is_name(name))
                self.reconcile()

    def reconcile(self) -> None:
        """Watch what is needed and nothing else; to be called again when `wanted` is different."""
        if self._group is None or self._consul is None or self._listed is None:
            return
        wanted = self._wanted()
        needed = {name for name in self._listed if name in wanted or not is_reserved(name)}
        for name in self._watches.keys() - needed:
            self._stop(name)
        for name in sorted(needed - self._watches.keys()):
            scope = self._watches[name] = anyio.CancelScope()
            self._unseen.add(name)
            self._group.start_soon(self._watch, self._consul, name, scope, name=f"watch {name}")
        self._check_complete()

    async def _watch(self, consul: ConsulClient, name: str, scope: anyio.CancelScope) -> None:
        with scope:
            note = partial(self._note_outage, name)
            async for entries in consul.watch_health(name, wait=WAIT, on_outage=note, sleep=self.sleep):
                self._take(name, entries)
                self._unseen.discard(name)
                self._check_complete()

    def _stop(self, name: str) -> None:
        self._watches.pop(name).cancel()
        self._unseen.discard(name)
        self._outages.pop(name, None)
        self._take(name, [])

    def _take(self, name: str, entries: Sequence[ServiceEntry]) -> None:
        if self._instances.replace(name, entries, self._clock.monotonic()):
            self._on_change()

    def _check_complete(self) -> None:
        if not self._complete and not self._unseen:
            self._complete = True
            self._on_complete()

    def _note_outage(self, service: str, error: MeshError | None) -> None:
        if error is not None:
            self._outages[service] = error.detail
            return
        self._outages.pop(service, None)
        # The list of names stands for all of them: a service that is not on it any more was lost, or has gone.
        for name in [service] if service else [*self._watches]:
            self._instances.outage_over(name, self._clock.monotonic())

    async def _expire(self) -> None:
        while True:
            await anyio.sleep(_EXPIRY_LOOKED_AT.total_seconds())
            if self._instances.expire(self._clock.monotonic()):
                self._on_change()


def _is_name(name: str) -> bool:
    try:
        _NAMES.validate_python(name)
    except ValidationError:
        return False
    return True
