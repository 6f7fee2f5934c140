"""Fetching a JWK Set from its URL: bounded in time and size, and never from an address that the mesh does not go to."""

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import anyio
from anyio import to_thread
from toska_common.errors import MeshError, UpstreamError

from toska_gateway.bounds import read_at_most

if TYPE_CHECKING:
    import aiohttp

MAX_BYTES: Final = 512 * 1024
TIMEOUT_S: Final = 5.0
_MAX_ADDRESSES: Final = 4
_MAX_AGE: Final = re.compile(r'(?:^|[\s,])max-age="?(\d{1,9})"?\s*(?:,|$)', re.IGNORECASE)
_NOT_STORED: Final = re.compile(r"(?:^|[\s,])no-(?:store|cache)\s*(?:,|=|$)", re.IGNORECASE)

Refusal = Callable[[str, int], str | None]
"""Why a resolved `(address, port)` must not be connected to; `None` if it may (`TargetRules.refusal`)."""


class KeysUnavailable(Exception):
    """The keys cannot be had; the reason is for the operator."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document, and for how many seconds its server says that it holds; `None` if it says nothing."""

    content: bytes
    max_age_s: float | None


async def fetch_key_set(url: str, ca: Path | None, refusal: Refusal) -> Fetched:
    """Fetch `url`; over TLS its server is held to `ca`, or to the system's authorities.

    Raises:
        KeysUnavailable: It cannot be had.
    """
    try:
        with anyio.fail_after(TIMEOUT_S):
            return await _fetch(url, ca, refusal)
    except TimeoutError:
        raise KeysUnavailable(f"no answer within {TIMEOUT_S:g} s") from None
    except MeshError as error:
        raise KeysUnavailable(error.detail) from error
    except ssl.SSLError as error:
        raise KeysUnavailable(f"no TLS: {error.reason or 'the handshake failed'}") from error
    except OSError as error:
        raise KeysUnavailable(error.strerror or str(error)) from error


async def _fetch(url: str, ca: Path | None, refusal: Refusal) -> Fetched:
    import aiohttp  # here: 0.1 s to import, which only those pay that fetch keys

    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    context = await to_thread.run_sync(_context, ca) if parts.scheme == "https" else None
    failure: Exception | None = None
    for address in await _resolve(host, port):
        refused = refusal(address, port)
        if refused is not None:
            raise UpstreamError(f"the mesh does not go there: {refused}")
        try:
            return await _get(url, address, port, context)
        except aiohttp.ClientConnectorCertificateError as error:
            raise UpstreamError(f"its certificate is not believed: {error.certificate_error}") from error
        except aiohttp.ClientConnectorError as error:
            failure = error
        except aiohttp.ClientError as error:
            raise UpstreamError(f"it cannot be fetched: {type(error).__name__}") from error
    raise UpstreamError(f"no connection to {host}:{port}") from failure


async def _get(url: str, address: str, port: int, context: ssl.SSLContext | None) -> Fetched:
    import aiohttp
    from yarl import URL

    parts = urlsplit(url)
    bare = f"[{address}]" if ":" in address else address
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "host": parts.netloc,
        "accept": "application/jwk-set+json, application/json",
        "accept-encoding": "identity",
    }
    connector = aiohttp.TCPConnector(force_close=True, ssl=context if context is not None else True)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(
            URL(f"{parts.scheme}://{bare}:{port}{path}", encoded=True),
            headers=headers,
            allow_redirects=False,
            server_hostname=parts.hostname if context is not None else None,
        ) as response,
    ):
        return await _read(response)


async def _read(response: "aiohttp.ClientResponse") -> Fetched:
    if 300 <= response.status < 400:
        raise UpstreamError("it redirects, and redirects are not followed")
    if response.status != 200:
        raise UpstreamError(f"it answered with status {response.status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamError("it sent a content coding that nobody asked for")
    if (response.content_length or 0) > MAX_BYTES:
        raise UpstreamError(f"it has more than {MAX_BYTES} bytes")
    content = await read_at_most(response, MAX_BYTES)
    return Fetched(content, max_age_of(", ".join(response.headers.getall("cache-control", []))))


def max_age_of(cache_control: str) -> float | None:
    """For how many seconds a response holds by its Cache-Control (RFC 9111 §5.2.2); `None` if that is not said."""
    if _NOT_STORED.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return None if found is None else float(found[1])


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UpstreamError(
            f"jwks_ca cannot be used: {getattr(error, 'strerror', None) or 'no certificate in it'}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UpstreamError(f"{host} cannot be resolved") from error
    return list(dict.fromkeys(str(one[4][0]) for one in found))[:_MAX_ADDRESSES]
