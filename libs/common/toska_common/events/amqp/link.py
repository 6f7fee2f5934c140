"""One connection to RabbitMQ that comes back, to any node that answers.

aio-pika's own robust connection is not used: what it restores it holds by weak references, a consumer that the broker
cancelled stays cancelled, and it tells nobody on which connection a delivery came. Here whoever needs channels runs a
loop of its own around `connected`, declares what it needs each time, and so never meets what belonged to another one.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiormq
import anyio
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection

from toska_common.errors import ConfigurationError
from toska_common.events.amqp.errors import CredentialsRefused, Gone, TlsFailed, asked
from toska_common.events.amqp.options import AmqpOptions, Node
from toska_common.events.amqp.tls import tls_problem
from toska_common.events.amqp.untyped import closing, connecting
from toska_common.events.errors import EventsUnavailable

log = structlog.get_logger(__name__)

CONNECT_S = 10.0
_WAITS_S = (0.1, 2.0)
_CLOSE_S = 2.0

# It logs every refused connection as an error with a traceback; what it knows is logged here, once.
_THEIRS = logging.getLogger("aiormq")
if _THEIRS.level == logging.NOTSET:
    _THEIRS.setLevel(logging.CRITICAL)


class Link:
    """A connection, or the wait for it.

    Args:
        purpose: Its name in RabbitMQ's listings.
    """

    def __init__(self, options: AmqpOptions, purpose: str) -> None:
        self._options = options
        self._purpose = purpose
        self._connection: AbstractConnection | None = None
        self._changed = asyncio.Event()
        self._next = 0
        self._told = False
        self.problem: EventsUnavailable | None = None
        """Why there is none, while there is none."""

    @property
    def up(self) -> bool:
        """Whether it is there now."""
        return self._connection is not None and self._connection.is_opened

    async def run(self) -> None:
        """Keep it, until cancelled."""
        wait_s = _WAITS_S[0]
        while True:
            connection = await self._connect()
            if connection is not None:
                wait_s = _WAITS_S[0]
                await self._hold(connection)
            await anyio.sleep(wait_s)
            wait_s = min(_WAITS_S[1], wait_s * 2)

    async def connected(self) -> AbstractConnection:
        """The connection, as soon as there is one."""
        while self._connection is None or not self._connection.is_opened:
            await self._changed.wait()
        return self._connection

    async def first(self) -> None:
        """Wait for the first connection, or until every node was tried in vain.

        Raises:
            EventsUnavailable: None could be reached; it goes on trying.
        """
        while self._connection is None:
            await self._changed.wait()
            if self._connection is None and self.problem is not None:
                raise self.problem

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncGenerator[AbstractChannel]:
        """A channel of the block's own.

        Raises:
            Gone: The connection went away meanwhile.
        """
        connection = await self.connected()
        channel = await asked(
            "opening a channel", connection.channel(publisher_confirms=confirms, frame_buffer_size=1000)
        )
        try:
            yield channel
        finally:
            await close_channel(channel)

    async def _hold(self, connection: AbstractConnection) -> None:
        self._connection, self.problem = connection, None
        self._change()
        try:
            reason = await closed(connection)
            log.warning("rabbitmq_connection_lost", purpose=self._purpose, reason=reason)
        finally:
            self._connection = None
            self.problem = EventsUnavailable("the connection to RabbitMQ is lost; it is being opened again")
            self._change()
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await connection.close()

    async def _connect(self) -> AbstractConnection | None:
        nodes = self._options.nodes
        refusals: list[str] = []
        kind = EventsUnavailable
        for node in (*nodes[self._next :], *nodes[: self._next]):
            try:
                with anyio.fail_after(CONNECT_S):
                    connection = await self._open(node)
            except (EventsUnavailable, Gone, TimeoutError) as error:
                if kind is EventsUnavailable and isinstance(error, EventsUnavailable):
                    kind = type(error)  # the first that says more than that nobody is there
                refusals.append(f"{node.place}: {str(error) or 'no answer'}")
                continue
            # The next time begins with the node after this one: it is the one that went away.
            self._next = (nodes.index(node) + 1) % len(nodes)
            log.info("rabbitmq_connected", purpose=self._purpose, node=node.place)
            self._told = False
            return connection
        self.problem = kind(f"no node of RabbitMQ can be reached: {'; '.join(refusals)}")
        # Once an outage: a broker can be away for days, and is tried every other second.
        level = logging.DEBUG if self._told else logging.WARNING
        log.log(level, "rabbitmq_unreachable", purpose=self._purpose, reason=self.problem.detail)
        self._told = True
        self._change()
        return None

    async def _open(self, node: Node) -> AbstractConnection:
        try:
            context = self._options.tls.context() if node.tls else None
        except ConfigurationError as error:  # it was right at the start: somebody is writing it anew, or took it away
            raise TlsFailed(error.detail) from error
        connection = aiormq.Connection(node.url, context=context, client_properties={"connection_name": self._purpose})
        try:
            await asked(f"connecting to {node.place}", connecting(connection))
        except Gone as error:
            if isinstance(error.__cause__, aiormq.AuthenticationError | aiormq.exceptions.ProbableAuthenticationError):
                raise CredentialsRefused(f"the credentials of the user {node.user!r} are refused") from None
            problem = tls_problem(error)
            if problem:
                raise TlsFailed(f"TLS failed: {problem}") from error
            raise
        return connection

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel, soon and in silence."""
    with anyio.move_on_after(_CLOSE_S, shield=True):
        try:
            await asked("closing a channel", channel.close())
        except (EventsUnavailable, Gone):
            return


async def closed(what: AbstractChannel | AbstractConnection, sooner: "asyncio.Future[str] | None" = None) -> str:
    """Wait until a channel or a connection is closed, by whomever, or `sooner` is done; why."""
    ending = closing(what)
    await asyncio.wait([ending] if sooner is None else [ending, sooner], return_when=asyncio.FIRST_COMPLETED)
    return sooner.result() if sooner is not None and sooner.done() else _reason(ending)


def _reason(ending: "asyncio.Future[object]") -> str:
    if ending.cancelled():
        return "closed"
    error = ending.exception()
    return "closed" if error is None else str(error)[:400]
