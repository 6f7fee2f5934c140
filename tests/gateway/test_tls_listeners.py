"""TLS towards clients: which certificate, who may come in, what becomes of those who speak something else."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from toska_common.child_process import start_child
from toska_gateway.errors import SnapshotRejected
from toska_tests.certificates import Authority, Pair, with_passphrase
from toska_tests.gateways import Gateway, running_gateway, single
from toska_tests.parts import program
from toska_tests.raw_http import PATIENCE_S, Client, ask, connect, connected, get, request, upstream
from toska_tests.waiting import unless_late, wait_until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secured(port: int, *pairs: Pair, limits: Mapping[str, Any] | None = None, **tls: Any) -> dict[str, Any]:
    """Everything goes to one upstream, and the listener shows these certificates."""
    document = single(port, limits=limits or {})
    document["server"]["tls"] = {"certificates": [pair.words() for pair in pairs], **tls}
    return document


async def shown(gateway: Gateway, context: ssl.SSLContext, name: str) -> int:
    """The serial number of the certificate that the gateway shows to who asks for `name`."""
    async with connected(gateway.address, tls=context, name=name) as client:
        return _serial(client.tls)


def _serial(tls: ssl.SSLObject) -> int:
    found = tls.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


async def test_a_listener_without_a_scheme_speaks_tls_once_the_routing_has_it(authority: Authority) -> None:
    pair = authority.issue("a", "shop.example")
    async with upstream() as app, running_gateway(single(app.port)) as gateway:
        assert (await ask(gateway.address, get())).status == 200
        await gateway.serve(secured(app.port, pair))
        answer = await ask(gateway.address, get(), tls=authority.client_context(), name="shop.example")
        assert (answer.status, answer.body) == (200, b"ok")
        assert app.requests[0].value("x-forwarded-proto") == b"http"
        assert app.requests[1].value("x-forwarded-proto") == b"https"
        assert app.requests[1].value("x-forwarded-for") == b"127.0.0.1"
        assert gateway.supervisor.urls[0].startswith("https://127.0.0.1:")


async def test_the_version_the_cipher_and_the_protocol_are_todays(authority: Authority) -> None:
    async with upstream() as app, running_gateway(secured(app.port, authority.issue("a", "a.example"))) as gateway:
        context = authority.client_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with connected(gateway.address, tls=context, name="a.example") as client:
            assert client.tls.version() == "TLSv1.3"
            assert client.tls.selected_alpn_protocol() == "http/1.1"
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with connected(gateway.address, tls=context, name="a.example") as client:
            cipher = client.tls.cipher()
            assert cipher is not None
            assert cipher[0].startswith("ECDHE-")
            assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]
            assert client.tls.compression() is None
        context.set_ciphers("AES256-SHA:AES128-GCM-SHA256")  # no forward secrecy
        with pytest.raises(ssl.SSLError):
            await connect(gateway.address, tls=context, name="a.example")


async def test_older_versions_than_the_least_are_refused(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    async with running_gateway(secured(1, pair, min_version="1.3")) as gateway:
        context = authority.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await connect(gateway.address, tls=context, name="a.example")
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        assert (await ask(gateway.address, get(), tls=context, name="a.example")).status == 502
        assert await gateway.metric("handshake_failures_total") == 1
        assert await gateway.metric("handshakes_total") == 1


async def test_each_name_is_shown_its_own_certificate(authority: Authority) -> None:
    first = authority.issue("first", "a.example", "127.0.0.1")
    second = authority.issue("second", "b.example", "*.b.example")
    third = authority.issue("third", "special.b.example")
    context = authority.client_context()
    async with running_gateway(secured(1, first, second, third)) as gateway:
        assert await shown(gateway, context, "a.example") == first.serial
        assert await shown(gateway, context, "b.example") == second.serial
        assert await shown(gateway, context, "any.b.example") == second.serial
        assert await shown(gateway, context, "ANY.B.example") == second.serial
        assert await shown(gateway, context, "special.b.example") == third.serial
        assert await shown(gateway, context, "127.0.0.1") == first.serial  # asks for no name
        context.check_hostname = False
        assert await shown(gateway, context, "unknown.example") == first.serial
        assert await shown(gateway, context, "two.labels.b.example") == first.serial


async def test_unknown_names_can_be_refused(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    context = authority.client_context()
    async with running_gateway(secured(1, pair, unknown_names="refuse")) as gateway:
        assert await shown(gateway, context, "a.example") == pair.serial
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await connect(gateway.address, tls=context, name="b.example")
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            await connect(gateway.address, tls=context)


async def test_names_can_be_given_beside_the_certificate(authority: Authority) -> None:
    first, second = authority.issue("first", "a.example"), authority.issue("second", "b.example")
    document = secured(1, first)
    document["server"]["tls"]["certificates"].append({**second.words(), "names": ["c.example"]})
    context = authority.client_context()
    context.check_hostname = False
    async with running_gateway(document) as gateway:
        assert await shown(gateway, context, "c.example") == second.serial
        assert await shown(gateway, context, "b.example") == first.serial


async def test_clients_without_the_certificate_that_is_required_get_nothing(
    authority: Authority, tmp_path: Path
) -> None:
    pair, mine = authority.issue("a", "a.example"), authority.issue("client")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "Other").issue("stranger")
    required = {"client": {"ca": str(authority.file), "mode": "require"}}
    async with upstream() as app, running_gateway(secured(app.port, pair, **required)) as gateway:
        answer = await ask(gateway.address, get(), tls=authority.client_context(mine), name="a.example")
        assert answer.status == 200
        for wrong in (None, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                await ask(gateway.address, get(), tls=authority.client_context(wrong), name="a.example")
        assert len(app.requests) == 1


async def test_an_optional_certificate_may_be_missing_and_not_wrong(authority: Authority, tmp_path: Path) -> None:
    pair, mine = authority.issue("a", "a.example"), authority.issue("client")
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "Other").issue("stranger")
    optional = {"client": {"ca": str(authority.file), "mode": "optional"}}
    async with upstream() as app, running_gateway(secured(app.port, pair, **optional)) as gateway:
        for client in (None, mine):
            answer = await ask(gateway.address, get(), tls=authority.client_context(client), name="a.example")
            assert answer.status == 200
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await ask(gateway.address, get(), tls=authority.client_context(stranger), name="a.example")
        assert len(app.requests) == 2


async def test_plain_http_on_a_tls_port_is_told_so(authority: Authority) -> None:
    document = secured(1, authority.issue("a", "a.example"))
    async with running_gateway(document) as gateway, connected(gateway.address) as client:
        answer = await client.ask(get())
        assert (answer.status, answer.error) == (400, "https-required")
        assert answer.value("connection") == b"close"
        assert await client.is_closed()


@pytest.mark.parametrize(
    "garbage", [b"\x80\x2e\x01\x00\x02", b"\x00" * 100, b"\x16\x03\x01\x00\x04abcd", b"\x16\xff" * 50]
)
async def test_what_is_neither_tls_nor_http_is_closed(authority: Authority, garbage: bytes) -> None:
    async with upstream() as app, running_gateway(secured(app.port, authority.issue("a", "a.example"))) as gateway:
        async with connected(gateway.address) as client:
            await client.send(garbage)
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await client.to_end()
        await gateway.until_quiet()
        assert await gateway.metric("handshake_failures_total") == 1
        answer = await ask(gateway.address, get(), tls=authority.client_context(), name="a.example")
        assert answer.status == 200


async def test_a_slow_handshake_is_cut_and_counted_among_connections(authority: Authority) -> None:
    limits = {"handshake_timeout": "1s", "connections": 2}
    document = secured(1, authority.issue("a", "a.example"), limits=limits)
    async with running_gateway(document) as gateway:
        opening: list[Client] = []

        async def full() -> None:
            while opening:
                await opening.pop().aclose()
            await wait_until(lambda: _is(gateway, "connections", 0), what="no connection")
            refused = await gateway.metric("refused_total")
            opening.extend([await connect(gateway.address), await connect(gateway.address)])
            await opening[0].send(b"\x16\x03\x01")
            await wait_until(lambda: _is(gateway, "connections", 2), within=1, what="two connections that open")
            async with connected(gateway.address) as third:
                assert await third.is_closed()
            assert await gateway.metric("refused_total") == refused + 1

        await unless_late(full, limit_s=1)  # and so while the handshakes may last
        for client in opening:
            assert await client.is_closed()
            await client.aclose()
        await gateway.until_quiet()
        (await connect(gateway.address, tls=authority.client_context(), name="a.example")).reset()


async def _is(gateway: Gateway, name: str, value: float) -> bool:
    return await gateway.metric(name) == value


@pytest.mark.parametrize("after", [0, 1, 60, 300])
async def test_a_client_that_leaves_during_the_handshake_leaves_nothing_behind(
    authority: Authority, after: int
) -> None:
    async with running_gateway(secured(1, authority.issue("a", "a.example"))) as gateway:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = authority.client_context().wrap_bio(incoming, outgoing, server_hostname="a.example")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        for leave in ("reset", "half_close"):
            async with connected(gateway.address) as client:
                await client.send(outgoing.read()[:after] if leave == "reset" else b"\x16\x03\x01\x02\x00\x01"[:after])
                client.reset() if leave == "reset" else client.end_writing()
                if leave == "half_close":
                    assert await client.is_closed()
        await gateway.until_quiet()
        (await connect(gateway.address, tls=authority.client_context(), name="a.example")).reset()


async def test_new_connections_get_the_renewed_certificate_and_old_ones_go_on(authority: Authority) -> None:
    old = authority.issue("a", "a.example")
    context = authority.client_context()
    async with (
        upstream() as app,
        running_gateway(secured(app.port, old)) as gateway,
        connected(gateway.address, tls=context, name="a.example") as client,
    ):
        assert _serial(client.tls) == old.serial
        with capture_logs() as logs:
            new = authority.issue("a", "a.example")
            await wait_until(lambda: _shows(gateway, context, new.serial), what="the renewed certificate")
        assert [entry["event"] for entry in logs] == ["tls_files_reloaded"]
        assert (await client.ask(get())).status == 200


async def _shows(gateway: Gateway, context: ssl.SSLContext, serial: int) -> bool:
    return await shown(gateway, context, "a.example") == serial


async def test_a_renewal_that_cannot_be_used_is_refused_and_the_old_one_stays(authority: Authority) -> None:
    pair, other = authority.issue("a", "a.example"), authority.issue("other", "a.example")
    context = authority.client_context()
    async with running_gateway(secured(1, pair)) as gateway:
        with capture_logs() as logs:
            secret = other.key.read_text()
            pair.key.write_text(secret)
            await wait_until(lambda: bool(logs), what="the refusal")
            assert await shown(gateway, context, "a.example") == pair.serial
            pair.certificate.write_bytes(other.certificate.read_bytes())
            await wait_until(lambda: _shows(gateway, context, other.serial), what="the whole renewal")
        (problem,) = logs[0]["problems"]
        assert (logs[0]["event"], problem["field"]) == ("tls_files_refused", "server.tls.certificates[0]")
        assert problem["reason"] == f"{pair.certificate}, {pair.key}: the key does not belong to the certificate"
        assert secret.splitlines()[1] not in str(logs)


async def test_what_cannot_be_used_is_refused_with_place_file_and_reason(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("a", "a.example")
    locked = with_passphrase(pair)
    (empty := tmp_path / "empty.pem").write_text("nothing\n")
    wrong = {
        "missing": ({"certificate": "/nowhere/a.pem", "key": str(pair.key)}, ".certificate", "No such file"),
        "empty": ({"certificate": str(empty), "key": str(pair.key)}, ".certificate", "no certificate"),
        "swapped": ({"certificate": str(pair.key), "key": str(pair.certificate)}, ".certificate", "no certificate"),
        "locked": ({"certificate": str(pair.certificate), "key": str(locked)}, "", "passphrase"),
        "folder": ({"certificate": str(pair.certificate), "key": str(tmp_path)}, ".key", "is not a file"),
    }
    async with running_gateway(secured(1, pair)) as gateway:
        for words, field, reason in wrong.values():
            document = secured(1, pair)
            document["server"]["tls"]["certificates"].append(words)
            with pytest.raises(SnapshotRejected) as caught:
                await gateway.serve(document)
            (problem, *_) = caught.value.problems
            assert problem["field"] == f"server.tls.certificates[1]{field}"
            assert reason in problem["reason"]
            assert "PRIVATE" not in caught.value.detail
        assert await shown(gateway, authority.client_context(), "a.example") == pair.serial


async def test_a_key_that_others_can_read_is_told(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    pair.key.chmod(0o644)
    with capture_logs() as logs:
        async with running_gateway(secured(1, pair)) as gateway:
            await gateway.serve(secured(2, pair))
    told = [entry for entry in logs if entry["event"] == "key_readable_by_others"]
    assert [(entry["path"], entry["mode"]) for entry in told] == [(str(pair.key), "0644")]


async def test_a_session_is_resumed_at_any_worker_also_after_a_reload(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    context = authority.client_context()
    async with upstream() as app, running_gateway(secured(app.port, pair), workers=2) as gateway:
        await wait_until(lambda: len(gateway.pids()) == 2 and _running(gateway), what="two workers")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.maximum_version = version
            served: dict[int, int] = {}
            session = await asyncio.to_thread(_session, gateway.address, context, None, served)
            for _ in range(16):  # with two workers, one of which would take them all with a chance of 1 in 32,768
                assert await asyncio.to_thread(_session, gateway.address, context, session, served)
            serial = authority.issue("a", "a.example").serial
            await wait_until(partial(_shows, gateway, authority.client_context(), serial), what="the renewed one")
            assert await asyncio.to_thread(_session, gateway.address, context, session, served)


def _running(gateway: Gateway) -> bool:
    return all(worker.state == "running" for worker in gateway.supervisor.workers())


def _session(
    address: tuple[str, int], context: ssl.SSLContext, session: ssl.SSLSession | None, served: dict[int, int]
) -> ssl.SSLSession | None:
    """Ask once; returns the session to resume, or, of one that is resumed, itself if it was."""
    with (
        socket.create_connection(address, timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="a.example", session=session) as tls,
    ):
        tls.sendall(get())
        assert tls.recv(4096).startswith(b"HTTP/1.1 200")
        if session is None:
            return tls.session
        return session if tls.session_reused else None


async def test_a_session_begun_without_a_certificate_opens_nothing_where_one_is_required(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    required = {"client": {"ca": str(authority.file), "mode": "require"}}
    context = authority.client_context()
    async with upstream() as app, running_gateway(secured(app.port, pair)) as gateway:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await gateway.serve(secured(app.port, pair))
            context.maximum_version = version
            session = await asyncio.to_thread(_session, gateway.address, context, None, {})
            await gateway.serve(secured(app.port, pair, **required))
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                await asyncio.to_thread(_session, gateway.address, context, session, {})


async def test_openssl_s_client_renegotiates_nothing_and_resumes(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    async with upstream() as app, running_gateway(secured(app.port, pair)) as gateway:
        host, port = gateway.address
        command = [
            *(str(program("openssl")), "s_client", "-connect", f"{host}:{port}", "-servername", "a.example", "-tls1_2"),
            *("-CAfile", str(authority.file), "-verify_return_error", "-quiet"),
        ]

        def talk() -> subprocess.CompletedProcess[bytes]:
            # "R" on a line of its own asks for a renegotiation, and what follows is not served on that connection.
            return subprocess.run(
                command[:-1], input=b"R\n" + get(), capture_output=True, timeout=PATIENCE_S, check=False
            )

        done = await asyncio.to_thread(talk)
        assert b"Verify return code: 0 (ok)" in done.stdout
        assert b"HTTP/1.1 200" not in done.stdout
        assert b"no renegotiation" in done.stderr.lower() or b"NO_RENEGOTIATION" in done.stdout + done.stderr
        await gateway.until_quiet()


async def test_openssl_s_client_may_ask_for_new_keys(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    async with upstream() as app, running_gateway(secured(app.port, pair)) as gateway:
        host, port = gateway.address
        command = [
            *(str(program("openssl")), "s_client", "-connect", f"{host}:{port}", "-servername", "a.example", "-tls1_3"),
            *("-CAfile", str(authority.file), "-verify_return_error"),
        ]
        keyboard, keys = os.pipe()
        with os.fdopen(keyboard, "rb") as stdin, os.fdopen(keys, "wb", buffering=0) as typed:
            client = start_child(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output = client.output()
            async with asyncio.timeout(PATIENCE_S):
                await _shown(output, b"Verify return code: 0 (ok)")
                for _ in range(3):  # K at the beginning of what is read from the terminal: new keys, on both sides
                    typed.write(b"K\n")
                    await _shown(output, b"KEYUPDATE")
                typed.write(get("/", "connection: close"))
                await _shown(output, b"HTTP/1.1 200")
                await client.wait()


async def _shown(output: AsyncIterator[bytes], text: bytes) -> None:
    seen = b""
    while text not in seen:
        seen += await anext(output)


async def test_curl_finds_its_way_from_the_redirecting_listener(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    listen = ("https://127.0.0.1:0",)
    async with upstream() as app, running_gateway(secured(app.port, pair), listen=listen) as secure:
        port = secure.port(0)
        plain = (f"http://127.0.0.1:0?redirect={port}",)
        async with running_gateway(secured(app.port, pair), listen=plain) as redirecting:
            found = await ask(redirecting.address, get("/a%20b?c=d", host="a.example:80"))
            assert (found.status, found.value("location")) == (308, f"https://a.example:{port}/a%20b?c=d".encode())
            challenge = await ask(redirecting.address, get("/.well-known/acme-challenge/token"))
            assert challenge.status == 200
            escape = await ask(redirecting.address, get("/.well-known/acme-challenge/../../secret"))
            assert escape.value("location") == f"https://test:{port}/secret".encode()
            server = await ask(redirecting.address, request("OPTIONS", "*"))
            assert (server.status, server.value("location")) == (204, None)
            command = [
                *(str(program("curl")), "-sS", "-L", "--cacert", str(authority.file), "-d", "body"),
                *(
                    "--resolve",
                    f"a.example:{port}:127.0.0.1",
                    "--resolve",
                    f"a.example:{redirecting.port(0)}:127.0.0.1",
                ),
                f"http://a.example:{redirecting.port(0)}/path",
            ]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=PATIENCE_S)
            assert (done.stdout, done.stderr) == (b"ok", b"")
            assert app.requests[-1].method == "POST"
            assert app.requests[-1].body == b"body"
