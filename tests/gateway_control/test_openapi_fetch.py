"""Fetching a document from an instance that may be anybody's: bounded, to its own address, without following."""

import gzip
from collections.abc import AsyncGenerator
from datetime import timedelta

import aiohttp
import anyio
import pytest
from aiohttp import web
from toska_common.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from toska_common.targets import TargetRules
from toska_gateway.instance_calls import MAX_BYTES
from toska_gateway.openapi.fetch import DocumentFetcher, parse_document
from toska_tests.control import web_server

RULES = TargetRules(frozenset({("127.0.0.1", 8102)}))


@pytest.fixture
async def fetcher() -> AsyncGenerator[DocumentFetcher]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield DocumentFetcher(session, timeout=timedelta(seconds=1))


class Server:
    """What a service may do to whoever asks for its document."""

    def __init__(self) -> None:
        self.seen: list[web.BaseRequest] = []
        self.sent = 0
        self.endless_ended = anyio.Event()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        match request.path:
            case "/large":
                return web.Response(body=b"x" * (MAX_BYTES + 1))
            case "/just":
                return web.Response(body=b"x" * MAX_BYTES)
            case "/endless":
                return await self._endless(request)
            case "/silent":
                await anyio.sleep(60)
            case "/dripping":
                return await self._dripping(request)
            case "/away":
                return web.Response(status=302, headers={"location": "http://169.254.169.254/latest/meta-data"})
            case "/bomb":
                packed = gzip.compress(b"\0" * (MAX_BYTES * 4))
                return web.Response(body=packed, headers={"content-encoding": "gzip"})
            case "/broken":
                return web.Response(status=500)
            case "/cookie":
                return web.Response(text="{}", headers={"set-cookie": "a=b"})
            case _:
                pass
        return web.Response(text='{"openapi": "3.1.0"}')

    async def _endless(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
                self.sent += 65536
        except ConnectionError:
            return response
        finally:
            self.endless_ended.set()

    async def _dripping(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await anyio.sleep(0.2)


@pytest.fixture
async def server() -> AsyncGenerator[tuple[Server, int]]:
    server = Server()
    async with web_server(server) as port:
        yield server, port


async def test_a_document_is_fetched_from_its_path_under_the_instance_s_name(
    fetcher: DocumentFetcher, server: tuple[Server, int]
) -> None:
    seen, port = server
    assert await fetcher.fetch("localhost", port, "/api/openapi.json?v=2", RULES.refusal) == b'{"openapi": "3.1.0"}'
    (request,) = seen.seen
    assert request.path_qs == "/api/openapi.json?v=2"
    assert request.headers["host"] == f"localhost:{port}"
    assert "authorization" not in request.headers
    assert len(await fetcher.fetch("127.0.0.1", port, "/just", RULES.refusal)) == MAX_BYTES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/large", "more than 4194304 bytes"),
        ("/endless", "more than 4194304 bytes"),
        ("/away", "redirects are not followed"),
        ("/bomb", "content coding"),
        ("/broken", "status 500"),
    ],
)
async def test_what_is_too_much_or_leads_away_is_refused(
    fetcher: DocumentFetcher, server: tuple[Server, int], path: str, reason: str
) -> None:
    with pytest.raises(UpstreamError, match=reason):
        await fetcher.fetch("127.0.0.1", server[1], path, RULES.refusal)
    assert [request.path for request in server[0].seen] == [path]


async def test_of_an_endless_document_no_more_than_the_bound_is_read(
    fetcher: DocumentFetcher, server: tuple[Server, int]
) -> None:
    with pytest.raises(UpstreamError):
        await fetcher.fetch("127.0.0.1", server[1], "/endless", RULES.refusal)
    with anyio.fail_after(20):
        await server[0].endless_ended.wait()
    assert server[0].sent < 4 * MAX_BYTES


@pytest.mark.parametrize("path", ["/silent", "/dripping"])
async def test_a_slow_service_is_given_up_in_time(
    fetcher: DocumentFetcher, server: tuple[Server, int], path: str
) -> None:
    with anyio.fail_after(20), pytest.raises(UpstreamTimeout, match="within 1 s"):
        await fetcher.fetch("127.0.0.1", server[1], path, RULES.refusal)


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        ("169.254.169.254", 80, "link-local"),
        ("::ffff:169.254.169.254", 80, "link-local"),
        ("100.100.100.200", 80, "cloud metadata"),
        ("127.0.0.1", 8102, "management address"),
        ("localhost", 8102, "management address"),
        ("0.0.0.0", 8102, "management address"),
        ("2130706433", 8102, "management address"),  # 127.0.0.1 as one number
    ],
)
async def test_the_mesh_goes_to_no_forbidden_address_whatever_it_is_called(
    fetcher: DocumentFetcher, host: str, port: int, reason: str
) -> None:
    with pytest.raises(UpstreamError, match=reason):
        await fetcher.fetch(host, port, "/openapi.json", RULES.refusal)


@pytest.mark.parametrize(
    "path",
    [
        "openapi.json",
        "",
        "//169.254.169.254/x",
        "http://169.254.169.254/",
        "/x#y",
        "/x y",
        "/x\r\nhost: a",
        "/ä",
        "/" + "x" * 2048,
        "@169.254.169.254/",
        "\\\\host",
    ],
)
async def test_only_a_path_on_the_instance_s_own_address_is_asked_for(fetcher: DocumentFetcher, path: str) -> None:
    with pytest.raises(UpstreamError, match="not a path"):
        await fetcher.fetch("127.0.0.1", 9, path, RULES.refusal)


async def test_nobody_there_and_no_such_name_are_told_apart(fetcher: DocumentFetcher) -> None:
    with pytest.raises(UpstreamUnavailable, match="cannot be fetched"):
        await fetcher.fetch("127.0.0.1", 9, "/", RULES.refusal)
    with pytest.raises(UpstreamUnavailable, match="cannot be resolved"):
        await fetcher.fetch("no-such-host.invalid", 80, "/", RULES.refusal)


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
async def test_what_is_no_port_is_refused(fetcher: DocumentFetcher, port: int) -> None:
    with pytest.raises(UpstreamError, match="not a port"):
        await fetcher.fetch("127.0.0.1", port, "/", RULES.refusal)


async def test_a_cookie_of_one_service_is_not_sent_to_another(
    fetcher: DocumentFetcher, server: tuple[Server, int]
) -> None:
    for _ in range(2):
        await fetcher.fetch("127.0.0.1", server[1], "/cookie", RULES.refusal)
    assert ["cookie" in request.headers for request in server[0].seen] == [False, False]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"<html>", b'{"a": NaN}', b'{"a": 1e999}', b"\xff\xfe", b"[" * 100_000, b"1" * 5000]
)
def test_what_is_not_json_is_refused(content: bytes) -> None:
    with pytest.raises(UpstreamError, match="not JSON"):
        parse_document(content)
