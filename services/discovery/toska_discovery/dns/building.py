"""The DNS server of a discovery, from its settings."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from toska_common.clock import Clock
from toska_common.tasks import SupervisedTasks

from toska_discovery.dns.policy import DnsPolicy
from toska_discovery.dns.recursion import Recursion
from toska_discovery.dns.server import DnsCounts, DnsServer
from toska_discovery.dns.sockets import serve_dns
from toska_discovery.dns.zone import FindQuery, Zone
from toska_discovery.listing import Listing
from toska_discovery.settings import Settings

log = structlog.get_logger(__name__)

OFF = -1


def build_dns(
    settings: Settings, listing: Listing, clock: Clock, counts: DnsCounts, find_query: FindQuery
) -> DnsServer:
    """A server for what `listing` has."""
    policy = DnsPolicy(
        domain=settings.dns_domain.lower(),
        only_passing=settings.dns_only_passing,
        node_ttl_s=int(settings.dns_node_ttl.total_seconds()),
        service_ttl_s={name: int(ttl.total_seconds()) for name, ttl in settings.dns_service_ttl.items()},
        udp_answers=settings.dns_udp_answers,
        truncate=settings.dns_truncate,
        recursors=settings.dns_recursors,
    )
    zone = Zone(
        listing,
        policy,
        settings.datacenter,
        port=settings.consul_port,
        serial=lambda: int(clock.now().timestamp()),
        find_query=find_query,
    )
    return DnsServer(zone, policy, counts)


@asynccontextmanager
async def open_dns(server: DnsServer, settings: Settings, tasks: SupervisedTasks) -> AsyncGenerator[None]:
    """Answer where the settings say until the block ends, if they say anything.

    Raises:
        ConfigurationError: The port is taken.
    """
    if settings.dns_port == OFF:
        yield
        return
    recursion = Recursion(settings.dns_recursors, server.counts, tasks.start_soon)
    async with serve_dns(server, recursion, settings.host, settings.dns_port) as port:
        log.info("dns_started", host=settings.host, port=port)
        yield
