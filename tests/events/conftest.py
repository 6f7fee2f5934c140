"""What carries events, each in its turn: a test that takes `carrier` runs over every durable transport."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from toska_common.events.transport import Transport
from toska_tests.event_carriers import Carrier, LogHost, embedded_carrier, log_host, rabbit_carrier
from toska_tests.rabbit_rigs import Rig
from toska_tests.rabbit_servers import RabbitServer

# Three nodes of RabbitMQ take half a minute to start: `make event-kills` has them.
collect_ignore = [] if os.environ.get("TOSKA_EVENTS_KILLS") else ["test_rabbitmq_cluster.py"]


@pytest.fixture(params=["embedded", "rabbitmq"])
async def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Carrier]:
    """Something that carries events, and keeps what the contract says."""
    if request.param == "rabbitmq":
        server: RabbitServer = request.getfixturevalue("rabbit")
        await server.wait_until_ready()
        yield rabbit_carrier(server)
        return
    async with embedded_carrier(tmp_path) as found:
        yield found


@pytest.fixture
async def transport(carrier: Carrier) -> AsyncGenerator[Transport]:
    """A connection to it."""
    async with carrier.connect() as found:
        yield found


@pytest.fixture
async def event_log(tmp_path: Path) -> AsyncGenerator[LogHost]:
    """An embedded log in this process."""
    async with log_host(tmp_path) as host:
        yield host


@pytest.fixture
async def rig(rabbit: RabbitServer) -> Rig:
    """RabbitMQ, with a namespace of the test's own."""
    await rabbit.wait_until_ready()
    return Rig(rabbit)
