"""Where no webhook may lead: the mesh's own listeners, as settings and registry name them, and what settings forbid."""

from collections.abc import Iterable
from socket import getaddrinfo
from urllib.parse import urlsplit

from anyio import to_thread
from toska_common.clients.consul import ConsulClient
from toska_common.targets import TargetRules

from toska_events.settings import Settings

_OWN = "toska-"
"""How the mesh's own services are called."""


async def forbidden_ground(consul: ConsulClient, settings: Settings) -> TargetRules:
    """The rules as of now.

    Raises:
        MeshError: The registry cannot be asked.
    """
    registry = urlsplit(settings.registry_api_url)
    found = {
        (settings.host, settings.port),
        (settings.host, max(settings.grpc_port, 0)),
        (registry.hostname or "", registry.port or 8500),
    }
    services, _ = await consul.catalog_services()
    for name in services:
        if name.startswith(_OWN):
            entries, _ = await consul.health_service(name)
            found |= {(entry.address, entry.service.port) for entry in entries}
    return TargetRules(frozenset(await to_thread.run_sync(_resolved, found)), settings.webhook_forbidden)


def _resolved(places: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for host, port in places:
        try:
            found |= {(str(item[4][0]), port) for item in getaddrinfo(host, port)}
        except OSError:
            found.add((host, port))
    return found
