"""Asking an instance that may be anybody's: bounded in time and size, at its own address, without following it away."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import anyio
from toska_common.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable

from toska_gateway.bounds import read_at_most

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES: Final = 4 * 2**20

Refusal = Callable[[str, int], str | None]
"""Why a resolved `(address, port)` must not be connected to; `None` if it may (`TargetRules.refusal`)."""

_PATH = re.compile(r"/(?!/)[!$&'()*+,;=:@/?%A-Za-z0-9._~-]{0,2047}")


class NotReached(UpstreamUnavailable):
    """No connection came about, so the instance has seen nothing of the request."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request; `body` is JSON, and `token` a bearer that the instance may see."""

    method: str
    path: str
    body: bytes | None = None
    token: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instance said."""

    status: int
    content: bytes


class InstanceCaller:
    """Asks instances over one session; nothing of one answer (cookies, redirects) reaches the next request."""

    def __init__(self, session: "aiohttp.ClientSession", *, timeout: timedelta) -> None:
        self._session = session
        self._timeout = timeout

    async def ask(self, host: str, port: int, question: Question, refusal: Refusal) -> Answer:
        """What an instance answers.

        Args:
            host: Name or address, as the instance is registered.
            port: Its port.
            question: What it is asked.
            refusal: Asked about the very address that is connected to.

        Raises:
            NotReached: It was not asked.
            UpstreamError: It did not answer, or not as one may; the reason is for a person.
        """
        if _PATH.fullmatch(question.path) is None:
            raise UpstreamError(f"{question.path[:100]!r} is not a path such as /openapi.json")
        if not 0 < port < 65536:
            raise UpstreamError(f"{port} is not a port")
        try:
            with anyio.fail_after(self._timeout.total_seconds()):
                address = await _resolve(host, port)
                refused = refusal(address, port)
                if refused is not None:
                    raise UpstreamError(f"the mesh does not go there: {refused}")
                return await self._ask(address, host, port, question)
        except TimeoutError as error:
            raise UpstreamTimeout(f"no answer within {self._timeout.total_seconds():g} s") from error

    async def _ask(self, address: str, host: str, port: int, question: Question) -> Answer:
        import aiohttp
        from yarl import URL

        bare = f"[{address}]" if ":" in address else address
        named = f"[{host}]" if ":" in host else host
        headers = {"host": f"{named}:{port}", "accept": "application/json", "accept-encoding": "identity"}
        if question.token:
            headers["authorization"] = f"Bearer {question.token}"
        if question.body is not None:
            headers["content-type"] = "application/json"
        url = URL(f"http://{bare}:{port}{question.path}", encoded=True)
        try:
            async with self._session.request(
                question.method, url, data=question.body, headers=headers, allow_redirects=False
            ) as response:
                return Answer(response.status, await _content(response))
        except aiohttp.ClientConnectorError as error:
            raise NotReached(f"it cannot be fetched: {error}") from error
        except aiohttp.ClientError as error:
            raise UpstreamUnavailable(f"it cannot be fetched: {error}") from error
        except OSError as error:
            raise UpstreamUnavailable(f"it cannot be fetched: {error.strerror or error}") from error


async def _content(response: "aiohttp.ClientResponse") -> bytes:
    if 300 <= response.status < 400:
        raise UpstreamError("it redirects, and redirects are not followed")
    # A few bytes of gzip can stand for gigabytes; we asked for none.
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamError("it sent a content coding that nobody asked for")
    if (response.content_length or 0) > MAX_BYTES:
        raise UpstreamError(f"it has more than {MAX_BYTES} bytes")
    return await read_at_most(response, MAX_BYTES)


async def _resolve(host: str, port: int) -> str:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotReached(f"{host} cannot be resolved") from error
    return str(found[0][4][0])
