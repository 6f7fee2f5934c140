"""One health check: a GET to one endpoint on a connection of its own, within its time.

A new connection each time, because a kept one would say nothing about whether the endpoint still accepts any. The data
plane's own connector opens it, so TLS, names, Unix sockets and forbidden targets are as they are for requests.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.attempt import failure_of
from toska_gateway.worker.caller import Caller
from toska_gateway.worker.endpoint import Endpoint

if TYPE_CHECKING:
    from toska_gateway.worker.http1 import ResponseHead
    from toska_gateway.worker.plane import Plane
    from toska_gateway.worker.upstream import Upstream

_STALL_S: Final = 0.1
"""A timeout that comes so late is ours: the loop stood still, and an answer may be waiting to be read."""

Done = Callable[[str | None], None]
"""Told once why the endpoint failed the check: empty if it did not, `None` if nothing can be said."""


class CheckRules:
    """A cluster's health check, compiled."""

    __slots__ = ("_expected", "_host", "_path", "fall", "interval", "rise", "timeout")

    def __init__(self, settings: dict[str, Any]) -> None:
        self.interval: float = settings["interval"]
        self.timeout: float = settings["timeout"]
        self.rise: int = settings["rise"]
        self.fall: int = settings["fall"]
        self._path: str = settings["path"]
        self._host: str | None = settings["host"]
        self._expected = frozenset(status for text in settings["expect"] for status in statuses_in(text))

    def request(self, endpoint: Endpoint) -> bytes:
        """The check's request."""
        host = self._host or ("localhost" if not endpoint.port else _authority(endpoint))
        lines = (
            f"GET {self._path} HTTP/1.1", f"host: {host}", "user-agent: toska-health-check", "accept: */*",
            "connection: close", "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode("ascii")

    def expects(self, status: int) -> bool:
        """Whether an answer with this status is well."""
        return status in self._expected


def statuses_in(text: str) -> range:
    """The statuses that `204`, `2xx` or `200-399` stands for."""
    if text.endswith("xx"):
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    low, _, high = text.partition("-")
    return range(int(low), int(high or low) + 1)


def _authority(endpoint: Endpoint) -> str:
    address = endpoint.address
    return f"[{address}]:{endpoint.port}" if ":" in address else f"{address}:{endpoint.port}"


class Probe(Caller):
    """A check under way; `done` is called when it is over, unless it is cancelled."""

    def __init__(self, plane: "Plane", endpoint: Endpoint, rules: CheckRules, done: Done) -> None:
        self._endpoint = endpoint
        self._rules = rules
        self._done: Done | None = done
        self._upstream: Upstream | None = None
        loop = plane.loop
        self._due = loop.time() + rules.timeout
        self._loop = loop
        self._timer: asyncio.TimerHandle = loop.call_at(self._due, self._on_timeout)
        plane.connector.connect(endpoint, self)

    def cancel(self) -> None:
        """End it without an outcome."""
        self._done = None
        self._end("")

    @property
    def connect_timeout(self) -> float:
        """Longer than the check has, so that it is the check's own timeout that ends it."""
        return self._rules.timeout + 1.0

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether the check is still under way."""
        return self._done is not None

    def send_on(self, upstream: "Upstream") -> None:
        """Ask."""
        self._upstream = upstream
        upstream.send(self, self._rules.request(self._endpoint))

    def connect_failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """Nobody is there."""
        reason = failure_of(error)
        self._end(f"no TLS: {reason}" if reason else f"no connection: {error}")

    def response_head(self, head: "ResponseHead", body: bytes, *, last: bool) -> None:
        self._end("" if self._rules.expects(head.status) else f"it answered {head.status}")

    def upstream_lost(self, upstream: "Upstream") -> None:
        self._upstream = None
        self._end("it closed the connection without an answer")

    def upstream_misbehaved(self, upstream: "Upstream", reason: str) -> None:
        self._end(reason)

    def _on_timeout(self) -> None:
        late = self._loop.time() - self._due > _STALL_S
        self._end(None if late else f"no answer within {self._rules.timeout:g} s")

    def _end(self, reason: str | None) -> None:
        self._timer.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()
        done, self._done = self._done, None
        if done is not None:
            done(reason)
