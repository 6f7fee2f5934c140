"""What aiormq leaves without types."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiormq.abc import AbstractChannel, AbstractConnection, ChannelFrame


def outgoing(channel: AbstractChannel) -> "asyncio.Queue[ChannelFrame]":
    """What is about to be written to a channel's connection."""
    connection: Any = channel.connection
    return connection.write_queue


def closing(what: AbstractChannel | AbstractConnection) -> "asyncio.Future[object]":
    """Done once it is closed."""
    found: Any = what
    return found.closing


def connecting(connection: AbstractConnection) -> Awaitable[object]:
    """Open a connection."""
    found: Any = connection
    return found.connect()
