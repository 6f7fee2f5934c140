"""What the bench asks of a proxy's module: where it is, what version it has, and how it is started."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.parts import Program
from benchmarks.proxies.certificate import Certificate
from benchmarks.proxies.guard import Guard

Limit = Literal["machine", "worker", "none"]

_ROOM = 4096
"""Connections that every proxy may have; haproxy keeps fewer to the upstream where it may have few."""
_SPARE = 64
"""Beside those of the load, for whoever looks whether all is well."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proxy is to be configured with.

    Attributes:
        folder: Its own.
        upstreams: Ports of the one upstream, used in turn.
        routes: Size of its route table.
        connections: The load's.
        workers: Threads or processes that do the work.
        streaming: Whether bodies are passed on as they come, for the proxy that would collect them first.
        caching: Whether responses are kept, in memory.
        certificate: What to show to clients, who then speak TLS.
        limit: Who counts for our rate limit: all workers together, each worker for itself, or nobody.
        guard: Whose tokens to ask for; every request is logged then, in `log`.
    """

    folder: Path
    port: int
    upstreams: tuple[int, ...]
    routes: int = 1
    connections: int = 1024
    workers: int = 1
    streaming: bool = False
    certificate: Certificate | None = None
    caching: bool = False
    limit: Limit = "worker"
    guard: Guard | None = None

    @property
    def log(self) -> Path:
        """Where the access log of a guarded proxy is."""
        return self.folder / "access.log"

    @property
    def room(self) -> int:
        """Clients it must be able to have at a time."""
        return max(_ROOM, self.connections + _SPARE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """How one is found, and its command line once its configuration is written."""

    name: str
    find: Callable[[], Program]
    version: Callable[[Program], str]
    command: Callable[[Program, Setup], list[str | Path]]
