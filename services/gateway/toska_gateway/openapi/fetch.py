"""Fetching a document from an instance that may be anybody's: bounded in time and size, and to its own address."""

import json
import math
import re
import socket
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import anyio
from toska_common.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

from toska_gateway.bounds import read_at_most

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES: Final = 4 * 2**20
TIMEOUT: Final = timedelta(seconds=3)

Refusal = Callable[[str, int], str | None]
"""Why a resolved `(address, port)` must not be connected to; `None` if it may (`TargetRules.refusal`)."""

_PATH = re.compile(r"/(?!/)[!$&'()*+,;=:@/?%A-Za-z0-9._~-]{0,1023}")


def allow_any(_address: str, _port: int) -> str | None:
    """For the mesh's own services, whose addresses come from settings."""
    return None


class DocumentFetcher:
    """Fetches documents over one session; nothing of one answer (cookies, redirects) reaches the next request."""

    def __init__(self, session: "aiohttp.ClientSession", *, timeout: timedelta = TIMEOUT) -> None:
        self._session = session
        self._timeout = timeout

    async def fetch(self, host: str, port: int, path: str, refusal: Refusal, *, token: str = "") -> bytes:
        """The bytes at `path` of an instance.

        Args:
            host: Name or address, as the instance is registered.
            port: Its port.
            path: A path on that address, with a query perhaps.
            refusal: Asked about the very address that is connected to.
            token: Sent as a bearer; only ever to the mesh's own services.

        Raises:
            UpstreamError: It cannot be had; the reason is for a person.
        """
        if _PATH.fullmatch(path) is None:
            raise UpstreamError("toska-openapi is not a path such as /openapi.json")
        if not 0 < port < 65536:
            raise UpstreamError(f"{port} is not a port")
        try:
            with anyio.fail_after(self._timeout.total_seconds()):
                address = await _resolve(host, port)
                refused = refusal(address, port)
                if refused is not None:
                    raise UpstreamError(f"the mesh does not go there: {refused}")
                return await self._get(address, host, port, path, token)
        except TimeoutError as error:
            raise UpstreamTimeout(f"no answer within {self._timeout.total_seconds():g} s") from error

    async def _get(self, address: str, host: str, port: int, path: str, token: str) -> bytes:
        import aiohttp
        from yarl import URL

        bare = f"[{address}]" if ":" in address else address
        named = f"[{host}]" if ":" in host else host
        headers = {"host": f"{named}:{port}", "accept": "application/json", "accept-encoding": "identity"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            async with self._session.get(
                URL(f"http://{bare}:{port}{path}", encoded=True), headers=headers, allow_redirects=False
            ) as response:
                if 300 <= response.status < 400:
                    raise UpstreamError("it redirects, and redirects are not followed")
                if response.status != HTTPStatus.OK:
                    raise UpstreamError(f"it answered with status {response.status}")
                # A few bytes of gzip can stand for gigabytes; we asked for none.
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise UpstreamError("it sent a content coding that nobody asked for")
                if (response.content_length or 0) > MAX_BYTES:
                    raise UpstreamError(f"it has more than {MAX_BYTES} bytes")
                return await read_at_most(response, MAX_BYTES)
        except aiohttp.ClientError as error:
            raise UpstreamUnavailable(f"it cannot be fetched: {error}") from error
        except OSError as error:
            raise UpstreamUnavailable(f"it cannot be fetched: {error.strerror or error}") from error


async def _resolve(host: str, port: int) -> str:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UpstreamUnavailable(f"{host} cannot be resolved") from error
    return str(found[0][4][0])


def parse_document(content: bytes) -> Any:
    """JSON in the strict sense, as it is going to be sent on.

    Raises:
        UpstreamError: It is something else.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UpstreamError(f"it is not JSON: {reason[:200]}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
