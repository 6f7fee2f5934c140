"""One client's stream over a connection: what it says goes into the protocol, what it is owed goes out.

Requests are taken in as they come. Responses are worked out when the connection takes them, from the resources that
hold then: a client that reads slowly keeps nobody waiting, and nothing piles up for it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import anyio
import structlog
from toska_common.clock import Clock

from toska_router.xds.exchange import Node, Refusal, Request
from toska_router.xds.methods import Method
from toska_router.xds.resources import ResourceSet
from toska_router.xds.status import ClientStatus, Refused, Tally, TypeStatus
from toska_router.xds.stream import Stream, TooManyTypes
from toska_router.xds.types import short_name
from toska_router.xds.wire import write_delta_response, write_state_response

log = structlog.get_logger(__name__)

PATIENCE_S = 5.0
"""How long what is owed waits for the answer to what was sent before it."""


class RequestRefused(Exception):
    """The stream ends with this reason; the client is at fault."""


class Resources(Protocol):
    """Where a session finds what its node is to have."""

    def resources_for(self, group: str) -> ResourceSet:
        """The newest resources of a group."""
        ...

    def group_of(self, node: Node) -> str:
        """The group that a node belongs to."""
        ...


class Session:
    """Serves one stream.

    Args:
        method: What was called.
        peer: Whom the connection comes from.
        resources: What there is.
        admit: Raises when the client may not have resources of a type.
        tally: What is counted.
        clock: Of timestamps and patience.
    """

    def __init__(
        self,
        method: Method,
        peer: str,
        *,
        resources: Resources,
        admit: Callable[[str], None],
        tally: Tally,
        clock: Clock,
    ) -> None:
        self._method = method
        self._peer = peer
        self._resources = resources
        self._admit = admit
        self._tally = tally
        self._clock = clock
        self._connected_at: datetime = clock.now()
        self._stream = Stream(incremental=method.incremental, aggregated=not method.type_url)
        self._node = Node()
        self._group = ""
        self._begun = False
        self._seen_types: set[str] = set()
        self._woken = anyio.Event()
        self._patience_ends: float | None = None

    @property
    def status(self) -> ClientStatus:
        """What there is to tell of it."""
        newest = self._resources.resources_for(self._group)
        return ClientStatus(
            node=self._node,
            group=self._group,
            peer=self._peer,
            incremental=self._method.incremental,
            aggregated=not self._method.type_url,
            connected_at=self._connected_at,
            types=tuple(
                TypeStatus(
                    type_url=each.type_url,
                    wildcard=each.wildcard,
                    names=len(each.names),
                    accepted_version=each.accepted_version,
                    up_to_date=each.is_up_to_date(newest.of(each.type_url)),
                    refusals=tuple(each.refusals.values()),
                )
                for each in self._stream.subscriptions
            ),
        )

    def wake(self) -> None:
        """There are other resources, or something was said."""
        self._woken.set()

    def take(self, request: Request) -> None:
        """Take a request in.

        Raises:
            RequestRefused: It makes no sense on this stream.
        """
        if not self._begun:
            self._begun = True
            self._node = request.node or Node()
            self._group = self._resources.group_of(self._node)
        request = self._of_type(request)
        if request.type_url not in self._seen_types:
            self._admit(request.type_url)
            self._seen_types.add(request.type_url)
        try:
            verdict = self._stream.receive(request, self._resources.resources_for(self._group))
        except TooManyTypes as error:
            raise RequestRefused("more types than there are") from error
        if verdict is not None:
            self._patience_ends = None
            self._note(verdict.type_url, verdict if isinstance(verdict, Refusal) else None)
        self.wake()

    async def speak(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is owed whenever something is, until cancelled."""
        encode = write_delta_response if self._method.incremental else write_state_response
        while True:
            self._woken = anyio.Event()
            while (response := self._stream.next_response(self._resources.resources_for(self._group))) is not None:
                self._tally.count(self._tally.sent, response.type_url)
                await write(encode(response))
            await self._wait()

    async def _wait(self) -> None:
        if not self._stream.held:
            self._patience_ends = None
            await self._woken.wait()
            return
        now = self._clock.monotonic()
        if self._patience_ends is None:
            self._patience_ends = now + PATIENCE_S
        with anyio.move_on_after(max(0.0, self._patience_ends - now)):
            await self._woken.wait()
            return
        self._patience_ends = None
        self._stream.let_go()

    def _of_type(self, request: Request) -> Request:
        only = self._method.type_url
        if not request.type_url and not only:
            raise RequestRefused("a request on an aggregated stream names its type")
        if only and request.type_url not in ("", only):
            raise RequestRefused(f"{self._method.name} serves {only} only")
        if request.type_url:
            return request
        return replace(request, type_url=only)

    def _note(self, type_url: str, refusal: Refusal | None) -> None:
        if refusal is None:
            self._tally.count(self._tally.accepted, type_url)
            return
        self._tally.count(self._tally.refused, type_url)
        self._tally.refusals.append(Refused(self._node, self._clock.now(), refusal))
        log.warning(
            "xds_resources_refused",
            node=self._node.id,
            type=short_name(type_url),
            names=refusal.names,
            version=refusal.version,
            reason=refusal.reason,
        )
