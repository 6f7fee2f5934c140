"""Real registries for tests: a Consul agent, and a wire to it that can be cut."""

import contextlib
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from toska_tests import parts
from toska_tests.clients import http_client
from toska_tests.ports import free_ports
from toska_tests.waiting import wait_until


class ConsulAgent:
    """`consul agent -dev`: a cluster of one that keeps all in memory, so a restart loses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first_port = free_ports(5)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL of its HTTP API, the same over restarts."""
        return f"http://127.0.0.1:{self._first_port}"

    @property
    def dns_port(self) -> int:
        """Where it answers in DNS."""
        return self._first_port + 4

    def start(self) -> None:
        """Start it; `wait_until_ready` waits for its leader."""
        http, server, lan, wan = range(self._first_port, self._first_port + 4)
        ports = [f"-http-port={http}", f"-server-port={server}", f"-serf-lan-port={lan}", f"-serf-wan-port={wan}"]
        command = [
            parts.consul(),
            "agent",
            "-dev",
            # Each of its syncs tells of every instance in debug, which `-dev` asks for: some 100 MB in one run.
            "-log-level=info",
            "-bind=127.0.0.1",
            f"-dns-port={self.dns_port}",
            "-grpc-port=-1",
            # One client is this whole machine here: every test that shares the agent, with all its blocking queries.
            "-hcl=limits { http_max_conns_per_client = 4000 }",
            *ports,
        ]
        with (self._folder / "consul.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    async def wait_until_ready(self) -> None:
        """Wait until it has a leader and its own node is in the catalog."""
        async with http_client(base_url=self.url) as client:

            async def is_ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return bool((await client.get("/v1/health/node/" + await _node(client))).json())
                return False

            await wait_until(is_ready, what="Consul has a leader")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None


async def _node(client: httpx.AsyncClient) -> str:
    return (await client.get("/v1/agent/self")).json()["Config"]["NodeName"]


@contextlib.contextmanager
def consul_agent(folder: Path) -> Generator[ConsulAgent]:
    """A started agent of the block's own."""
    agent = ConsulAgent(folder)
    agent.start()
    try:
        yield agent
    finally:
        agent.stop()


class Wire:
    """A TCP forwarder whose connections can be cut, and which then refuses new ones until mended."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._cut = False
        self._open: set[ByteStream] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def cut(self) -> None:
        """Drop every connection; until `mend` new ones are dropped too."""
        self._cut = True
        for stream in [*self._open]:
            await stream.aclose()

    def mend(self) -> None:
        """Let connections pass again."""
        self._cut = False

    async def serve(self, downstream: SocketStream) -> None:
        """Forward one connection."""
        async with downstream:
            if self._cut:
                return
            async with await anyio.connect_tcp("127.0.0.1", self._target_port) as upstream:
                self._open |= {downstream, upstream}
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, downstream, upstream, group.cancel_scope)
                    group.start_soon(self._pump, upstream, downstream, group.cancel_scope)
                self._open -= {downstream, upstream}

    async def _pump(self, source: ByteStream, target: ByteStream, scope: anyio.CancelScope) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for chunk in source:
                await target.send(chunk)
        scope.cancel()


@asynccontextmanager
async def wire_to(url: str) -> AsyncGenerator[Wire]:
    """A wire to the server at `url`, on this machine."""
    wire = Wire(int(url.rsplit(":", 1)[1]))
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    wire.port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, wire.serve)
        yield wire
        group.cancel_scope.cancel()
