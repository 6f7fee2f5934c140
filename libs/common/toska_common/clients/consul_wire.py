"""One agent's HTTP API as such: requests, blocking queries, and what its refusals mean.

Source: https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from toska_common.clients.registry_tls import RegistryTls
from toska_common.errors import (
    CallerError,
    Forbidden,
    NotFound,
    Unauthenticated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from toska_common.units import format_duration

if TYPE_CHECKING:
    import aiohttp

DEFAULT_WAIT = timedelta(minutes=5)
"""How long a watch lets each blocking query wait; Consul's own default."""


class ConsulWire:
    """The way to one agent. Every exchange ends within its deadline and raises errors of `toska_common.errors` only:

    `UpstreamUnavailable` (nobody there, or no leader), `UpstreamTimeout`, `UpstreamError` (any other 5xx),
    `Unauthenticated` (no token, or an unknown one), `Forbidden`, `NotFound`, `CallerError` (any other 4xx).
    """

    def __init__(self, session: "aiohttp.ClientSession", url: str, call_timeout: timedelta) -> None:
        self._session = session
        self._base = f"{url.rstrip('/')}/v1"
        self._timeout = call_timeout

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, token: str, call_timeout: timedelta, tls: RegistryTls | None
    ) -> AsyncGenerator[Self]:
        """As `ConsulClient.open` says."""
        import aiohttp  # here, since it takes 100 ms to import and most who know this module never connect

        context = None if tls is None else tls.context()
        # A watch holds its connection for as long as it waits.
        connector = aiohttp.TCPConnector(limit=0, ssl=True if context is None else context)
        headers = {"X-Consul-Token": token} if token else {}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield cls(session, url, call_timeout)

    async def read(self, path: str) -> Any:
        """What is there now."""
        return parse(await self.send("GET", path))

    async def block(
        self,
        path: str,
        query: Mapping[str, str] | list[tuple[str, str]],
        index: int,
        wait: timedelta | None,
        *,
        absent: Any = None,
    ) -> tuple[Any, int]:
        """What is there, with its index, once that is another than `index`; `absent` in the place of a 404."""
        parameters = [*query.items()] if isinstance(query, Mapping) else [*query]
        timeout = self._timeout
        if index:
            parameters.append(("index", str(index)))
            # Consul adds up to a sixteenth of the wait, so that its watchers do not come back all at once.
            timeout += (wait or DEFAULT_WAIT) * (1 + 1 / 16)
            if wait is not None:
                parameters.append(("wait", format_duration(wait)))
        status, headers, body = await self.exchange("GET", path, parameters, None, timeout)
        answered = int(headers.get("X-Consul-Index", "0"))
        if status == 404 and absent is not None:
            return absent, answered
        self.check(status, body)
        return parse(body), answered

    async def send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        """Send a request that does not block; returns the body of its answer."""
        status, _, content = await self.exchange(method, path, [*(query or {}).items()], body)
        self.check(status, content)
        return content

    async def exchange(
        self, method: str, path: str, query: list[tuple[str, str]], body: bytes | None, timeout: timedelta | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; returns the answer's status, fields and body, whatever they are."""
        import aiohttp
        from yarl import URL

        url = URL(f"{self._base}/{path}", encoded=True).with_query(query)
        limit = aiohttp.ClientTimeout(
            total=(timeout or self._timeout).total_seconds(), sock_connect=self._timeout.total_seconds()
        )
        try:
            async with self._session.request(method, url, data=body, timeout=limit, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            raise UpstreamTimeout(f"the registry at {self._base} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnavailable(f"the registry at {self._base} cannot be reached: {error}") from error

    def check(self, status: int, body: bytes) -> None:
        """Raise what an answer's status stands for."""
        if status < 300:
            return
        reason = body[:500].decode(errors="replace").strip() or f"status {status}"
        if status == 403 and "ACL not found" in reason:
            raise Unauthenticated(f"the registry does not know this token: {reason}")
        if status == 403:
            known = "X-Consul-Token" in self._session.headers
            raise (Forbidden if known else Unauthenticated)(f"the registry refuses: {reason}")
        if status == 404 or _names_unknown_check(status, reason):
            raise NotFound(reason)
        if status in {429, 503} or "No cluster leader" in reason:
            raise UpstreamUnavailable(f"the registry cannot serve now: {reason}")
        if status >= 500:
            raise UpstreamError(f"the registry failed: {reason}")
        raise CallerError(f"the registry refuses: {reason}")


def _names_unknown_check(status: int, reason: str) -> bool:
    # Consul before 1.11 answers 500 to a report on a check that it does not know, newer ones 404.
    return status == 500 and ("does not have associated TTL" in reason or "Unknown check" in reason)


def parse(body: bytes) -> Any:
    """JSON of an answer."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise UpstreamError("the registry's answer is not JSON: is it a Consul agent?") from error


def encode(body: Any) -> bytes:
    """JSON of a request."""
    return json.dumps(body, separators=(",", ":")).encode()


def segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")
