"""Where the server that runs this app listens: found from inside, so that nobody has to say it twice.

uvicorn binds its socket after the app's lifespan has started, or inherits one from the parent of `--workers` and
`--reload`; either way its `Server` knows. The server that serves this app is found among the running tasks: its
`serve` coroutine awaits, directly or not, the very lifespan that asks. A test client has no server, and that is how one
is told from real life.
"""

import asyncio
import socket
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

if TYPE_CHECKING:
    import uvicorn


_OTHER_SERVERS = ("hypercorn", "granian", "daphne")


class NotReachable(Exception):
    """The app is served in a way that others cannot reach over HTTP; the message says which."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The address that a server accepts connections on."""

    host: str
    port: int


def find_server(state: MutableMapping[str, Any] | None) -> "uvicorn.Server | None":
    """The uvicorn server whose lifespan handed out `state` (the `state` of the lifespan scope), if there is one."""
    module = sys.modules.get("uvicorn.server")  # never imported for this: whoever serves has done that
    if module is None:
        return None
    servers = {server for task in asyncio.all_tasks() for server in _servers_of(task, module.Server)}
    for server in servers:
        if state is not None and getattr(getattr(server, "lifespan", None), "state", None) is state:
            return server
    # Somebody between us and the server replaced the state; with one server there is no doubt anyway.
    return servers.pop() if len(servers) == 1 else None


def find_other_server() -> str | None:
    """The name of a server in this process that is not uvicorn: an app under one must be told that it does not join."""
    return next((name for name in _OTHER_SERVERS if name in sys.modules), None)


async def wait_until_listening(server: "uvicorn.Server") -> Listening:
    """Wait until `server` accepts connections, and return where.

    Raises:
        NotReachable: It listens on a Unix socket, speaks TLS, or stops before it has started.
    """
    while not server.started:
        if server.should_exit:
            raise NotReachable("the server stopped before it had started")
        await anyio.sleep(0.005)  # uvicorn offers a flag and no event
    if server.config.is_ssl:
        raise NotReachable(
            "it is served over TLS, and the mesh speaks plain HTTP behind its gateway; terminate TLS there"
        )
    bound = [sock for listener in server.servers for sock in listener.sockets]
    addresses = [sock.getsockname()[:2] for sock in bound if sock.family in {socket.AF_INET, socket.AF_INET6}]
    if not addresses:
        raise NotReachable("it is served on a Unix socket; give it a --port to join the mesh")
    host, port = next((address for address in addresses if ":" not in address[0]), addresses[0])
    return Listening(host, port)


def advertised_address(bound_host: str, registry_url: str) -> str:
    """The address to give to others: the bound one, or the one of the interface towards the registry.

    `bound_host` is an IP address; wildcards stand for all interfaces.
    """
    if not ip_address(bound_host.partition("%")[0]).is_unspecified:
        return bound_host
    target = urlsplit(registry_url)
    family = socket.AF_INET6 if ":" in bound_host and ":" in (target.hostname or "") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; the kernel picks the source address by its routes.
            probe.connect((target.hostname or "127.0.0.1", target.port or 8500))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _servers_of(task: "asyncio.Task[Any]", kind: type[Any]) -> Iterator[Any]:
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        owner = None if frame is None else frame.f_locals.get("self")
        if isinstance(owner, kind):
            yield owner
        coroutine = getattr(coroutine, "cr_await", None)
