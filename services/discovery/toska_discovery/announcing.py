"""Tells the mesh's events what became of instances: the feed, published.

On a Consul cluster every discovery sees every change; the one that holds a lock publishes. What happens while nobody
holds it is not told: these are notifications, and the registry is the truth.
"""

from contextlib import aclosing
from datetime import timedelta

import anyio
import structlog
from toska_common.clients.consul import ConsulClient
from toska_common.clients.consul_lock import Lock
from toska_common.contracts.discovery import Instance
from toska_common.contracts.events import (
    HealthChanged,
    InstanceDeregistered,
    InstanceEvent,
    InstanceRegistered,
    InstanceUpdated,
)
from toska_common.errors import MeshError
from toska_common.events.bus import EventBus

from toska_discovery.feed import EventType, Feed, Happened, Missed

log = structlog.get_logger(__name__)

LOCK = "toska/discovery/announcer"
LOCK_TTL = timedelta(seconds=10)
_RETRY_S = 1.0
_QUIET_S = 3600.0

_TYPES: dict[EventType, type[InstanceEvent]] = {
    "registered": InstanceRegistered,
    "updated": InstanceUpdated,
    "health-changed": HealthChanged,
    "deregistered": InstanceDeregistered,
}


async def announce_feed(feed: Feed, bus: EventBus) -> None:
    """Publish what happens from now on, until the feed stops."""
    async with aclosing(feed.read("", _QUIET_S)) as news_of:
        async for news in news_of:
            match news:
                case Happened():
                    instance = news.instance
                    bus.offer(describe(news.type, instance, news.reason), key=instance.id, subject=instance.service)
                case Missed():
                    log.warning("instance_events_missed")
                case _:
                    pass


async def announce_by_lock(feed: Feed, bus: EventBus, consul: ConsulClient, name: str) -> None:
    """The same, whenever nobody else does, for ever."""
    while True:
        try:
            async with Lock.hold(consul, LOCK, value=name.encode(), ttl=LOCK_TTL, lock_delay=timedelta()):
                await announce_feed(feed, bus)
        except MeshError as error:
            log.info("announcing_interrupted", reason=error.detail)
        await anyio.sleep(_RETRY_S)


def describe(kind: EventType, instance: Instance, reason: str = "") -> InstanceEvent:
    """The event that tells of it."""
    return _TYPES[kind](
        service=instance.service,
        instance_id=instance.id,
        address=instance.address,
        port=instance.port,
        health=instance.health.value,
        version=instance.version,
        zone=instance.zone,
        region=instance.region,
        tags=instance.tags,
        reason=reason,
    )
