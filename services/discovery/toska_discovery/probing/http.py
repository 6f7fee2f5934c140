"""HTTP checks: 2xx is passing, 429 a warning, and everything else critical, in Consul's words.

One session for all of them, without cookies, connections kept, proxies of the environment or redirects of its own
making: those are followed here as Go's client does, up to ten.
"""

import contextlib
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self
from urllib.parse import urljoin

import aiohttp
import anyio
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from toska_common.contracts.discovery import Health
from yarl import URL

from toska_discovery.check import Probe
from toska_discovery.probing.dialling import Dialler, join_address, reason_of
from toska_discovery.probing.verdict import READ_MAX_BYTES, Tail, Verdict

MAX_REDIRECTS = 10
USER_AGENT = "Consul Health Check"
"""What services let pass without a login, so it is Consul's."""
_QUOTED = re.compile(r"[!#-;=?-\[\]_a-z~]*")
_KEPT_FOR_THE_HOST = ("authorization", "www-authenticate", "cookie", "cookie2")


class _Failure(Exception):
    """No answer that could be judged; the message is the reason, in Go's words."""


class HttpRunner:
    """Sends a request and judges the answer's status."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, dialler: Dialler, resolver: AbstractResolver | None = None) -> AsyncGenerator[Self]:
        """With a session that connects through `dialler`; names are the machine's, or those of `resolver`."""
        connector = aiohttp.TCPConnector(
            limit=0, force_close=True, use_dns_cache=False, socket_factory=dialler.open_socket, resolver=resolver
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # each probe has its own
            auto_decompress=False,
        ) as session:
            yield cls(session)

    async def run(self, probe: Probe, output_max_bytes: int) -> Verdict:
        request = _Request(probe)
        deadline = anyio.current_time() + probe.timeout_s
        try:
            with anyio.fail_after(probe.timeout_s):
                response = await self._follow(request, probe)
        except TimeoutError:
            waiting = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return Verdict(Health.CRITICAL, f"{request.what}: {waiting}")
        except _Failure as error:
            return Verdict(Health.CRITICAL, str(error))
        tail = Tail(output_max_bytes)
        # The status has been said: a body that breaks off or takes too long does not change it. (As in Consul.)
        with anyio.CancelScope(deadline=deadline), contextlib.suppress(aiohttp.ClientError, OSError):
            async with response:
                await _read(response, tail)
        said = f"{response.status} {response.reason or ''}".strip()
        return Verdict(
            _judge(response.status), f"HTTP {probe.method} {_public(probe.target)}: {said} Output: {tail.text}"
        )

    async def _follow(self, request: "_Request", probe: Probe) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS):
            response = await self._send(request, probe)
            try:
                redirected = request.redirect(response)
            except BaseException:
                response.release()
                raise
            if not redirected:
                return response
            response.release()
        raise _Failure(f"{request.what}: stopped after {MAX_REDIRECTS} redirects")

    async def _send(self, request: "_Request", probe: Probe) -> aiohttp.ClientResponse:
        url, host, port = _parse(request)
        try:
            return await self._session.request(
                request.method,
                url,
                data=request.body.encode() or None,
                headers=request.headers,
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                ssl=not probe.tls_skip_verify,
            )
        except aiohttp.ClientConnectorDNSError as error:
            raise _Failure(f"{request.what}: dial tcp: lookup {host}: no such host") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise _Failure(f"{request.what}: x509: {error.certificate_error}") from error
        except aiohttp.ClientConnectorError as error:
            address = join_address(host, port)
            raise _Failure(f"{request.what}: dial tcp {address}: {reason_of(error.os_error)}") from error
        except aiohttp.ServerDisconnectedError as error:
            raise _Failure(f"{request.what}: EOF") from error
        except (aiohttp.ClientError, OSError, ValueError, ssl.SSLError) as error:
            raise _Failure(f"{request.what}: {error}") from error


class _Request:
    """What is sent next: at first what the check asks for, then what the answers redirect it to."""

    def __init__(self, probe: Probe) -> None:
        self.method = probe.method or "GET"
        self.url = probe.target
        self.body = probe.body
        self.headers: CIMultiDict[str] = CIMultiDict()
        for name, values in probe.header.items():
            for value in values:
                self.headers.add(name, value)
        self.headers.setdefault("User-Agent", USER_AGENT)
        self.headers.setdefault("Accept", "text/plain, text/*, */*")
        # A few bytes of gzip can stand for gigabytes.
        self.headers.setdefault("Accept-Encoding", "identity")
        self._location = ""

    @property
    def what(self) -> str:
        """How Go's client names the request in its errors: by the redirect, if it is one, as that was written."""
        return f'{self.method.capitalize()} "{_public(self._location or self.url)}"'

    def redirect(self, response: aiohttp.ClientResponse) -> bool:
        """Become what `response` redirects to; false if it does not."""
        if response.status not in {301, 302, 303, 307, 308}:
            return False
        location = response.headers.get("location", "")
        if response.status in {307, 308}:
            if not location:
                return False
        elif not location:
            raise _Failure(f"{self.what}: {response.status} response missing Location header")
        elif self.method not in {"GET", "HEAD"}:
            self.method, self.body = "GET", ""
        else:
            self.body = ""
        before = URL(self.url)
        self._location, self.url = location, urljoin(self.url, location)
        try:
            elsewhere = URL(self.url).host != before.host
        except ValueError:
            elsewhere = True
        if elsewhere:
            for name in (*_KEPT_FOR_THE_HOST, "host"):
                self.headers.popall(name, None)
        return True


def _parse(request: _Request) -> tuple[URL, str, int]:
    """The URL of a request, its host and its port."""
    try:
        # As it stands, unless something in it has to be quoted: a service may mean what it wrote as `%2F`.
        url = URL(request.url, encoded=_QUOTED.fullmatch(request.url) is not None)
        host, port = url.host, url.port
    except ValueError as error:
        raise _Failure(f'parse "{_public(request.url)}": {error}') from error
    if url.scheme not in {"http", "https"}:
        raise _Failure(f'{request.what}: unsupported protocol scheme "{url.scheme}"')
    if not host:
        raise _Failure(f"{request.what}: http: no Host in request URL")
    return url, host, port or 0


async def _read(response: aiohttp.ClientResponse, tail: Tail) -> None:
    async for chunk in response.content.iter_any():
        tail.add(chunk)
        if tail.total >= READ_MAX_BYTES:
            response.close()
            return


def _judge(status: int) -> Health:
    if 200 <= status <= 299:
        return Health.PASSING
    return Health.WARNING if status == 429 else Health.CRITICAL


def _public(url: str) -> str:
    """`url` without the password that may stand in it."""
    try:
        parsed = URL(url)
        return url if parsed.password is None else str(parsed.with_password("***"))
    except ValueError:
        return url
