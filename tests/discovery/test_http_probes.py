"""A probe over HTTP against real sockets: what it asks, and what it makes of the answer."""

import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from anyio.abc import SocketStream
from toska_common.contracts.discovery import Health
from toska_common.targets import TargetRules
from toska_discovery.check import Probe
from toska_discovery.probing.dialling import Dialler
from toska_discovery.probing.http import HttpRunner
from toska_discovery.probing.verdict import Verdict
from toska_tests.ports import free_port
from toska_tests.probed import CannedServer, answer, canned_server, hang

PASSING, WARNING, CRITICAL = Health.PASSING, Health.WARNING, Health.CRITICAL
LIMIT = 4096


@pytest.fixture
async def http() -> AsyncGenerator[HttpRunner]:
    async with HttpRunner.open(Dialler(TargetRules())) as runner:
        yield runner


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("200 OK", PASSING),
        ("204 No Content", PASSING),
        ("299 Fine", PASSING),
        ("304 Not Modified", CRITICAL),
        ("404 Not Found", CRITICAL),
        ("429 Too Many Requests", WARNING),
        ("500 Internal Server Error", CRITICAL),
    ],
)
async def test_the_status_of_an_http_answer_is_the_verdict(
    server: CannedServer, http: HttpRunner, status: str, health: Health
) -> None:
    body = b"" if status.startswith(("204", "304")) else b"as ever\n"
    server.answers["/health"] = answer(status, body)
    verdict = await http.run(Probe(target=f"{server.url}/health"), LIMIT)
    assert verdict == Verdict(health, f"HTTP GET {server.url}/health: {status} Output: {body.decode()}")


async def test_an_http_check_sends_what_it_was_told_to(server: CannedServer, http: HttpRunner) -> None:
    server.answers["/check?a=b%2Fc"] = answer(body=b"fine")
    probe = Probe(
        target=f"{server.url}/check?a=b%2Fc",
        method="PUT",
        header={"X-Token": ("one", "two"), "Host": ("orders.example",)},
        body='{"deep": true}',
    )
    assert (await http.run(probe, LIMIT)).status is PASSING
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "PUT /check?a=b%2Fc HTTP/1.1"
    assert body == b'{"deep": true}'
    sent = {line.lower() for line in lines[1:]}
    assert {
        "host: orders.example",
        "x-token: one",
        "x-token: two",
        "user-agent: consul health check",
        "accept: text/plain, text/*, */*",
        "content-length: 14",
        "connection: close",
    } <= sent
    assert not any(line.startswith(("cookie:", "content-type:")) for line in sent)


async def test_of_a_long_answer_the_end_is_shown(server: CannedServer, http: HttpRunner) -> None:
    server.answers["/"] = answer(body=b"x" * 5000 + b"the end")
    verdict = await http.run(Probe(target=f"{server.url}/"), LIMIT)
    shown = verdict.output.partition("Output: ")[2]
    assert (len(shown), shown.endswith("xthe end")) == (LIMIT, True)
    assert (await http.run(Probe(target=f"{server.url}/"), 3)).output.endswith("Output: end")


async def test_an_endless_answer_is_not_read_to_its_end(server: CannedServer, http: HttpRunner) -> None:
    async def endless(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"y" * 65536)

    server.answers["/"] = endless
    started = time.monotonic()
    verdict = await http.run(Probe(target=f"{server.url}/", timeout_s=30), LIMIT)
    assert verdict.status is PASSING
    assert time.monotonic() - started < 10


async def test_an_answer_that_never_comes_is_critical_when_the_timeout_is_over(
    server: CannedServer, http: HttpRunner
) -> None:
    server.answers["/"] = hang
    started = time.monotonic()
    verdict = await http.run(Probe(target=f"{server.url}/", timeout_s=0.2), LIMIT)
    assert verdict == Verdict(
        CRITICAL,
        f'Get "{server.url}/": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
    )
    assert 0.15 < time.monotonic() - started < 20


async def test_a_body_that_hangs_leaves_the_verdict_to_the_status(server: CannedServer, http: HttpRunner) -> None:
    async def half(stream: SocketStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await anyio.sleep_forever()

    server.answers["/"] = half
    verdict = await http.run(Probe(target=f"{server.url}/", timeout_s=0.3), LIMIT)
    assert verdict == Verdict(PASSING, f"HTTP GET {server.url}/: 200 OK Output: half")


@pytest.mark.parametrize(
    ("method", "status", "second", "body"),
    [
        ("GET", "301 Moved", "GET", b""),
        ("POST", "302 Found", "GET", b""),
        ("PUT", "303 See Other", "GET", b""),
        ("HEAD", "302 Found", "HEAD", b""),
        ("PUT", "307 Temporary", "PUT", b"again"),
        ("POST", "308 Permanent", "POST", b"again"),
    ],
)
async def test_redirects_are_followed_as_consul_does(
    server: CannedServer, http: HttpRunner, method: str, status: str, second: str, body: bytes
) -> None:
    server.answers["/old"] = answer(status, location="/new?x=1")
    server.answers["/new?x=1"] = answer()
    probe = Probe(target=f"{server.url}/old", method=method, body="again" if method in {"PUT", "POST"} else "")
    verdict = await http.run(probe, LIMIT)
    assert verdict == Verdict(PASSING, f"HTTP {method} {server.url}/old: 200 OK Output: ")
    assert server.requests[1].startswith(f"{second} /new?x=1 ".encode())
    assert server.requests[1].partition(b"\r\n\r\n")[2] == body


async def test_a_redirect_elsewhere_takes_no_credentials_along(server: CannedServer, http: HttpRunner) -> None:
    server.answers["/old"] = answer("302 Found", location=f"http://localhost:{server.port}/new")
    server.answers["/new"] = answer()
    header = {"Authorization": ("Bearer s3cret",), "X-Other": ("kept",)}
    assert (await http.run(Probe(target=f"{server.url}/old", header=header), LIMIT)).status is PASSING
    assert b"s3cret" in server.requests[0]
    assert b"s3cret" not in server.requests[1]
    assert b"kept" in server.requests[1]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/loop", 'Get "/loop": stopped after 10 redirects'),
        ("", "{url}: 302 response missing Location header"),
        ("ftp://x/y", 'Get "ftp://x/y": unsupported protocol scheme "ftp"'),
        ("http://169.254.169.254/latest", 'Get "http://169.254.169.254/latest": dial tcp 169.254.169.254:80: '),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_critical(
    server: CannedServer, http: HttpRunner, location: str, reason: str
) -> None:
    server.answers["/loop"] = answer("302 Found", b"", **({"location": location} if location else {}))
    verdict = await http.run(Probe(target=f"{server.url}/loop"), LIMIT)
    assert verdict.status is CRITICAL
    assert verdict.output.startswith(reason.format(url=f'Get "{server.url}/loop"'))
    if location == "/loop":
        assert len(server.requests) == 10


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://no.such.host.invalid/x", "dial tcp: lookup no.such.host.invalid: no such host"),
        ("ftp://127.0.0.1/", 'unsupported protocol scheme "ftp"'),
        ("http:///x", "http: no Host in request URL"),
        ("http://[::1/x", ""),
        ("::::", ""),
        ("", ""),
        ("http://127.0.0.1:99999/", ""),
        ("http://[fe80::1]/", "fe80::1 is a link-local address"),
        ("http://100.100.100.200/", "100.100.100.200 is a cloud metadata address"),
        ("http://[::ffff:169.254.169.254]/", "169.254.169.254 is a link-local address"),
    ],
)
async def test_a_target_that_cannot_be_asked_is_critical_and_says_why(
    http: HttpRunner, target: str, reason: str
) -> None:
    verdict = await http.run(Probe(target=target), LIMIT)
    assert verdict.status is CRITICAL
    assert reason in verdict.output
    assert verdict.output.startswith(('Get "', 'parse "'))


async def test_a_closed_port_is_named_as_consul_names_it(http: HttpRunner) -> None:
    port = free_port()
    verdict = await http.run(Probe(target=f"http://127.0.0.1:{port}/x"), LIMIT)
    reason = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert verdict == Verdict(CRITICAL, f'Get "http://127.0.0.1:{port}/x": {reason}')


async def test_a_connection_that_is_dropped_is_critical(server: CannedServer, http: HttpRunner) -> None:
    server.answers["/"] = b""
    assert await http.run(Probe(target=f"{server.url}/"), LIMIT) == Verdict(CRITICAL, f'Get "{server.url}/": EOF')
    server.answers["/"] = b"SSH-2.0-OpenSSH\r\n"
    assert (await http.run(Probe(target=f"{server.url}/"), LIMIT)).status is CRITICAL


async def test_a_password_in_a_target_is_shown_to_nobody(server: CannedServer, http: HttpRunner) -> None:
    server.answers["/"] = answer()
    for port in (server.port, free_port()):
        verdict = await http.run(Probe(target=f"http://me:s3cret@127.0.0.1:{port}/"), LIMIT)
        assert "s3cret" not in verdict.output
    assert b"authorization: basic" in server.requests[0].lower()


async def test_a_header_that_cannot_be_sent_is_critical(server: CannedServer, http: HttpRunner) -> None:
    verdict = await http.run(Probe(target=f"{server.url}/", header={"X": ("a\r\nY: b",)}), LIMIT)
    assert verdict.status is CRITICAL
    assert server.requests == []


async def test_a_certificate_that_nobody_vouches_for_passes_only_unverified(
    http: HttpRunner, certificate: Path
) -> None:
    async with canned_server(certificate=certificate) as server:
        server.answers["/"] = answer(body=b"safe")
        probe = Probe(target=f"https://localhost:{server.port}/")
        verdict = await http.run(probe, LIMIT)
        assert verdict.status is CRITICAL
        assert "x509: " in verdict.output
        verdict = await http.run(Probe(target=probe.target, tls_skip_verify=True), LIMIT)
        assert verdict == Verdict(PASSING, f"HTTP GET {probe.target}: 200 OK Output: safe")


class Rebinding(AbstractResolver):
    """Says another address each time, as whoever owns a name can."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = [*addresses]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = self._addresses.pop(0)
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_that_resolves_to_something_else_the_second_time_is_refused_then(server: CannedServer) -> None:
    server.answers["/"] = answer()
    probe = Probe(target=f"http://rebound.example:{server.port}/")
    async with HttpRunner.open(Dialler(TargetRules()), Rebinding("127.0.0.1", "169.254.169.254")) as http:
        assert (await http.run(probe, LIMIT)).status is PASSING
        verdict = await http.run(probe, LIMIT)
    assert verdict.status is CRITICAL
    assert "169.254.169.254 is a link-local address" in verdict.output
