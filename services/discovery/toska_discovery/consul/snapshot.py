"""`snapshot`: all of the registry as an archive, and back."""

import asyncio

from toska_discovery.consul.access import require_admin
from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.request import ConsulRequest, Refusal, Reply
from toska_discovery.errors import SnapshotDamaged
from toska_discovery.snapshot import contents_of, read_snapshot, write_snapshot

ARCHIVE_MAX_BYTES = 64 * 1024 * 1024
"""Longest archive that is taken."""


async def save(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET snapshot`; the admin token is needed wherever it is asked from."""
    refuse_other_datacenter(here, request)
    require_admin(request.access, "a snapshot")
    contents = contents_of(here.registry.state)
    packed = await asyncio.to_thread(write_snapshot, contents)
    headers = index_headers(contents.index, catalog=False)
    return Reply(packed, headers=((b"content-type", b"application/x-gzip"), *headers))


async def restore(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT snapshot`."""
    refuse_other_datacenter(here, request)
    packed = await request.body(ARCHIVE_MAX_BYTES)
    try:
        contents = await asyncio.to_thread(read_snapshot, packed)
    except SnapshotDamaged as error:
        raise Refusal(500, error.detail) from error
    await here.registry.restore(contents)
    return Reply()
