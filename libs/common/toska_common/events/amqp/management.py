"""Figures that AMQP does not give, from RabbitMQ's management API, where its URL is given.

Sources: RabbitMQ's HTTP API, `GET /api/queues/VHOST/NAME`; figures are as old as its statistics interval (5 s).
"""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from toska_common.events.amqp.options import AmqpOptions

_WITHIN = aiohttp.ClientTimeout(total=5)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the queues of one group together."""

    unsettled: int
    delivered: int
    acked: int


class Management:
    """The management API of one broker; the user is that of the AMQP connection."""

    def __init__(self, options: AmqpOptions) -> None:
        amqp = URL(options.nodes[0].url)
        self._base = options.management.rstrip("/")
        credentials = f"{amqp.user or ''}:{amqp.password or ''}".encode()
        self._headers = {"Authorization": f"Basic {b64encode(credentials).decode()}"}
        self._vhost = quote(amqp.path.removeprefix("/") or "/", safe="")

    async def figures(self, queues: Iterable[str]) -> Figures | None:
        """What is known of some queues; `None` if the API does not answer."""
        unsettled = delivered = acked = 0
        try:
            async with aiohttp.ClientSession(headers=self._headers, timeout=_WITHIN) as session:
                for queue in queues:
                    url = URL(f"{self._base}/api/queues/{self._vhost}/{quote(queue, safe='')}", encoded=True)
                    async with session.get(url) as response:
                        if response.status == 404:
                            continue
                        if response.status != 200:
                            return None
                        state: dict[str, Any] = await response.json()
                    stats: dict[str, Any] = state.get("message_stats") or {}
                    unsettled += int(state.get("messages_unacknowledged") or 0)
                    delivered += int(stats.get("deliver") or 0)
                    acked += int(stats.get("ack") or 0)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return Figures(unsettled, delivered, acked)
