"""Addresses of the mesh's own listeners, which no user's cluster may lead to."""

import contextlib
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio
import structlog
from anyio import to_thread

from toska_gateway.settings import Settings

log = structlog.get_logger(__name__)

_RESOLVE_TIMEOUT_S = 2.0


def split_url(url: str, default_port: int = 80) -> tuple[str, int]:
    """Host and port of a base URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or default_port


def reachable_host(host: str) -> str:
    """The address under which this machine reaches a listener bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


async def management_addresses(settings: Settings) -> frozenset[tuple[str, int]]:
    """Every `(IP address, port)` of the mesh's own listeners, as far as the settings name them.

    The data listener is one of them: a cluster that leads there is a loop, and its second pass would come from an
    address that is trusted.
    """
    named = [(settings.bound_admin_host, settings.admin_port)]
    named += [(listener.host, listener.port) for listener in settings.listeners]
    if settings.routes is None:
        urls = (settings.router_url, settings.discovery_url, settings.events_api_url, settings.registry_api_url)
        named += [split_url(url) for url in urls]
    found = [(address, port) for host, port in named if port for address in await _resolve(host)]
    return frozenset(found)


async def _resolve(host: str) -> Iterable[str]:
    try:
        ip = ip_address(host)
    except ValueError:
        return await _look_up(host)
    return {str(ip), *await to_thread.run_sync(local_addresses)} if ip.is_unspecified else {str(ip)}


async def _look_up(host: str) -> set[str]:
    try:
        with anyio.fail_after(_RESOLVE_TIMEOUT_S):
            found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        # Whoever cannot be found now cannot be reached by a user's cluster under this name either.
        log.warning("management_host_unresolved", host=host, error=str(error))
        return set()
    return {str(sockaddr[0]) for *_, sockaddr in found}


def local_addresses() -> set[str]:
    """IP addresses of this machine's interfaces, as far as they can be told without privileges or a library."""
    found = {"127.0.0.1", "::1"}
    # The source address for a far destination (RFC 5737, RFC 3849 documentation ranges); nothing is sent.
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found.add(str(probe.getsockname()[0]))
        except OSError:
            continue
    with contextlib.suppress(OSError):
        found.update(str(sockaddr[0]) for *_, sockaddr in socket.getaddrinfo(socket.gethostname(), None))
    return {address.partition("%")[0] for address in found}
