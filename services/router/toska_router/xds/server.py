"""The server: resources by group of nodes, and the sockets that clients come to.

gRPC and the messages of Envoy's API are loaded when it is to listen, in a thread: that takes a tenth of a second.
"""

import importlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import structlog
from toska_common.clock import Clock, SystemClock

from toska_router.xds.access import Admit, Caller, ServerTls, TlsNow, admit_everybody
from toska_router.xds.exchange import Node
from toska_router.xds.groups import EVERYBODY
from toska_router.xds.loads import LoadReports
from toska_router.xds.methods import Method
from toska_router.xds.resources import Message, ResourceSet, build_resource_set
from toska_router.xds.session import Session
from toska_router.xds.status import ClientStatus, Tally

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 0.3


class XdsServer:
    """Serves xDS v3 to Envoy and to gRPC.

    Args:
        group_of: Which group a node belongs to; all are alike if left out.
        admit: Raises `AccessRefused` for who may not have something; everybody may if left out.
        clock: The machine's own if left out.
        loads: How clients report what they send, and to whom; they do not if left out.
    """

    def __init__(
        self,
        *,
        group_of: Callable[[Node], str] = lambda _node: EVERYBODY,
        admit: Admit = admit_everybody,
        clock: Clock | None = None,
        loads: LoadReports | None = None,
    ) -> None:
        self.tally = Tally()
        self._group_of = group_of
        self._admit = admit
        self._clock = clock or SystemClock()
        self._loads = loads
        self._sets: dict[str, ResourceSet] = {}
        self._sessions: set[Session] = set()

    def set_resources(
        self,
        group: str,
        resources: Mapping[str, Mapping[str, Message]],
        *,
        on_demand: Mapping[str, Mapping[str, Message]] | None = None,
    ) -> bool:
        """Let a group of nodes have these, by type URL and name; tells whether anything is different.

        What is left out is gone. `on_demand` is for those who ask by name, and is not in `*`.

        Raises:
            ValueError: A name cannot be one; nothing is changed.
        """
        return self.set_resource_set(group, build_resource_set(resources, on_demand, self._sets.get(group)))

    def set_resource_set(self, group: str, resources: ResourceSet) -> bool:
        """The same with a set that is built already."""
        before = self._sets.get(group)
        if before is not None and dict(before.by_type) == dict(resources.by_type):
            return False
        self._sets[group] = resources
        for session in self._sessions:
            session.wake()
        return True

    def resources_for(self, group: str) -> ResourceSet:
        """The resources of a group; those of everybody if it has none of its own."""
        found = self._sets.get(group) or self._sets.get(EVERYBODY)
        return ResourceSet() if found is None else found

    def group_of(self, node: Node) -> str:
        """The group that a node belongs to."""
        return self._group_of(node)

    def list_clients(self) -> list[ClientStatus]:
        """Every stream that is open, by node."""
        return sorted((session.status for session in self._sessions), key=lambda each: (each.node.id, each.peer))

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def listening(self, host: str, port: int, tls: ServerTls | TlsNow | None = None) -> AsyncGenerator[int]:
        """Listen, and end all streams on leaving; gives the port, which the machine chooses for 0.

        Args:
            host: Of the address.
            port: Of the address.
            tls: Certificates; a function of them is asked again for each client that connects, so that they can be
                renewed while streams stay open.

        Raises:
            AddressTaken: Somebody else listens there.
            ValueError: The certificate or its key cannot be used.
        """
        rpc: Any = await anyio.to_thread.run_sync(_load)
        server, bound = rpc.build_server(self.open_session, host, port, _as_function(tls), self._admit, self._loads)
        await server.start()
        log.info("xds_started", host=host, port=bound, tls=tls is not None)
        try:
            yield bound
        finally:
            with anyio.CancelScope(shield=True):
                await server.stop(STOP_WITHIN_S)

    @asynccontextmanager
    async def open_session(self, method: Method, peer: str, caller: Caller) -> AsyncGenerator[Session]:
        """A session for a stream that a client opens; it is listed until left.

        Raises:
            AccessRefused: This caller may not open any.
        """
        self._admit(caller, "")
        session = Session(
            method,
            peer,
            resources=self,
            admit=lambda type_url: self._admit(caller, type_url),
            tally=self.tally,
            clock=self._clock,
        )
        self._sessions.add(session)
        try:
            yield session
        finally:
            self._sessions.discard(session)


def _as_function(tls: ServerTls | TlsNow | None) -> TlsNow | None:
    return (lambda: tls) if isinstance(tls, ServerTls) else tls


def _load() -> Any:
    from toska_common.envoy_api import pool

    pool()
    return importlib.import_module("toska_router.xds.rpc")
