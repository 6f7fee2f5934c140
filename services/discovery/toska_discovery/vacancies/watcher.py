"""Looks for instances of this machine whose port has closed, and turns them critical before their leases lapse.

    open ──no listener in the kernel's list──▶ suspected ──refused, twice──▶ critical, until it renews
     ▲                                             │ accepted, or no answer
     └─────────────────────────────────────────────┘

The list says that something may have happened, the refused connections say what: the kernel refuses only where nobody
listens. A process that is slow, stopped or has a full accept queue still listens, and a connection that gets no answer
proves nothing.
"""

import errno
import socket
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

import anyio
import structlog
from toska_common.clock import Clock
from toska_common.contracts.discovery import Health

from toska_discovery.changes import Changes
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.errors import UnknownCheck
from toska_discovery.instance import Instance, canonical_address
from toska_discovery.vacancies.ledger import Ledger, lease_of
from toska_discovery.vacancies.listeners import Listing

log = structlog.get_logger(__name__)

INTERVAL_S = 0.25
SHARE = 1 / 50
"""Most of the time that listing may take: on a machine with very many sockets it is done less often."""
LONGEST_INTERVAL_S = 1.0
"""However long it took: most of that may have been spent waiting for a processor."""
PAUSE_S = 0.1
"""Between the two attempts to connect: a server that is restarted in place may be between two listeners."""
CONNECT_WITHIN_S = 1.0


@dataclass(slots=True)
class VacancyCounts:
    """For the metrics: looks that ended, and instances whose port the last one saw open."""

    looks: int = 0
    watched: int = 0


class VacancyWatcher:
    """Watches the ports of one registry's instances; `run` never returns."""

    def __init__(self, registry: EmbeddedRegistry, listing: Listing, clock: Clock, counts: VacancyCounts) -> None:
        self._registry = registry
        self._listing = listing
        self._clock = clock
        self._counts = counts
        self._ledger = Ledger(is_ours)
        self._ledger.take(registry.state.instances)
        registry.on_change(self._take)

    async def run(self) -> None:
        """Look for ever."""
        async with anyio.create_task_group() as group:
            while True:
                began = self._clock.monotonic()
                for key in self._look():
                    group.start_soon(self._examine, key)
                pause = (self._clock.monotonic() - began) / SHARE
                await anyio.sleep(min(max(INTERVAL_S, pause), LONGEST_INTERVAL_S))

    def _take(self, changes: Changes) -> None:
        self._ledger.take(changes.instances)

    def _look(self) -> list[str]:
        if not self._ledger:
            self._counts.watched = 0
            return []
        try:
            suspects = self._ledger.look(self._listing())
        except OSError as error:
            log.warning("listeners_not_listed", reason=str(error))
            return []
        self._counts.looks += 1
        self._counts.watched = self._ledger.watched
        return suspects

    async def _examine(self, key: str) -> None:
        instance = self._registry.state.instances.get(key)
        if instance is None or lease_of(instance) is None:
            return
        address = canonical_address(instance.service.address)
        port = instance.service.port
        if await _refuses(address, port):
            await anyio.sleep(PAUSE_S)
            if await _refuses(address, port):
                self._report(key, instance)

    def _report(self, key: str, suspected: Instance) -> None:
        instance = self._registry.state.instances.get(key)
        if instance is None or instance.service.endpoint != suspected.service.endpoint:
            return
        lease = lease_of(instance)
        if lease is None:
            return
        output = (
            f"connection refused: nobody listens on {instance.service.address}:{instance.service.port} any more; "
            "critical until it is renewed"
        )
        try:
            self._registry.report(lease, Health.CRITICAL, output)
        except UnknownCheck:
            return
        log.info("listener_gone", instance_id=instance.service.id, instance_service=instance.service.name)


@lru_cache(maxsize=4096)
def is_ours(address: str) -> bool:
    """Whether an IP address is this machine's: then the kernel takes it as the source towards itself. Sends nothing."""
    ip = ip_address(address)
    if ip.is_loopback:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ip_address(probe.getsockname()[0].partition("%")[0]) == ip
    except OSError:
        return False


async def _refuses(address: str, port: int) -> bool:
    try:
        with anyio.fail_after(CONNECT_WITHIN_S):
            stream = await anyio.connect_tcp(address, port)
    except TimeoutError:
        return False
    except OSError as error:
        return _is_refusal(error)
    await stream.aclose()
    return False


def _is_refusal(error: OSError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.ECONNREFUSED:
            return True
        cause = cause.__cause__
    return False
