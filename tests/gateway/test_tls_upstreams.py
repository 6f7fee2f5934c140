"""TLS towards endpoints: who is believed, what is shown, and what a failure says."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from toska_common.clock import now_utc
from toska_gateway.errors import SnapshotRejected
from toska_tests.certificates import Authority
from toska_tests.gateways import Gateway, running_gateway
from toska_tests.raw_http import (
    PATIENCE_S,
    Conversation,
    CutOff,
    ask,
    black_hole,
    connected,
    get,
    request,
    response,
    upstream,
)
from toska_tests.waiting import wait_until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def to(port: int, tls: dict[str, Any] | None, address: str = "127.0.0.1", **policies: Any) -> dict[str, Any]:
    """Everything goes over TLS to one endpoint."""
    policies.setdefault("retry", {"attempts": 1})
    cluster: dict[str, Any] = {"endpoints": [{"address": address, "port": port}]}
    if tls is not None:
        cluster["tls"] = tls
    route = {"name": "all", "match": {"path_prefix": "/"}, "to": "app", "policies": policies}
    return {"clusters": {"app": cluster}, "routes": [route]}


async def failure(gateway: Gateway) -> tuple[int, str | None, str]:
    """What a request gets: status, code and text."""
    answer = await ask(gateway.address, get())
    return answer.status, answer.error, answer.body.decode()


async def test_an_endpoint_is_verified_by_its_own_name_and_its_connection_is_kept(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "localhost"))
    names: list[str | None] = []

    def note(_connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        names.append(name)

    server.sni_callback = note
    document = {"ca": str(authority.file)}
    async with upstream(tls=server) as app, running_gateway(to(app.port, document, "localhost")) as gateway:
        for _ in range(3):
            assert (await ask(gateway.address, get())).status == 200
        assert names == ["localhost"]
        assert len(app.conversations) == 1
        assert app.requests[0].value("host") == b"test"


async def test_another_name_can_be_asked_for_and_verified(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "legacy.example"))
    tls = {"ca": str(authority.file), "server_name": "legacy.example"}
    async with upstream(tls=server) as app, running_gateway(to(app.port, tls)) as gateway:
        assert (await ask(gateway.address, get())).status == 200
        assert app.conversations[0].tls.version() == "TLSv1.3"


async def test_every_reason_not_to_believe_an_endpoint_is_said(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "Stranger")
    past, future = now_utc() - timedelta(hours=1), now_utc() + timedelta(days=1)
    cases = {
        "Hostname mismatch": authority.server_context(authority.issue("name", "other.example")),
        "unable to get local issuer": stranger.server_context(stranger.issue("issuer", "a.example")),
        "certificate has expired": authority.server_context(authority.issue("old", "a.example", until=past)),
        "not yet valid": authority.server_context(authority.issue("new", "a.example", since=future)),
    }
    tls = {"ca": str(authority.file), "server_name": "a.example"}
    async with running_gateway() as gateway:
        for reason, server in cases.items():
            async with upstream(tls=server) as app:
                await gateway.serve(to(app.port, tls))
                status, code, text = await failure(gateway)
                assert (status, code) == (502, "upstream-tls-failed")
                assert "certificate verify failed" in text
                assert reason in text
                assert app.requests == []
        await gateway.until_quiet()


async def test_insecure_believes_anybody_and_has_to_be_said(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "other.example"))
    async with upstream(tls=server) as app, running_gateway(to(app.port, {})) as gateway:
        assert (await failure(gateway))[:2] == (502, "upstream-tls-failed")
        await gateway.serve(to(app.port, {"insecure": True}))
        assert (await ask(gateway.address, get())).status == 200


async def test_an_endpoint_that_speaks_no_tls_is_told_apart(authority: Authority) -> None:
    async def plain(conversation: Conversation) -> None:
        await conversation.some()
        await conversation.send(response(400))

    async with upstream(plain) as app, running_gateway(to(app.port, {"insecure": True})) as gateway:
        status, code, text = await failure(gateway)
        assert (status, code) == (502, "upstream-tls-failed")
        assert "does not speak TLS" in text


@pytest.mark.parametrize("how", ["close", "reset", "garbage"])
async def test_an_endpoint_that_breaks_off_the_handshake_leaves_nothing_behind(how: str) -> None:
    async def broken(conversation: Conversation) -> None:
        await conversation.some()
        if how == "garbage":
            await conversation.send(b"\x16\x03\x03\x00\x04" + b"\xff" * 100)
        elif how == "reset":
            conversation.reset()

    async with upstream(broken) as app, running_gateway(to(app.port, {"insecure": True})) as gateway:
        status, code, _ = await failure(gateway)
        assert (status, code) == (502, "upstream-tls-failed")
        await gateway.until_quiet()
        assert await gateway.metric("connect_failures_total") == 1


async def test_the_connect_timeout_holds_for_the_handshake_too() -> None:
    async def silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with upstream(silent) as app:
        document = to(app.port, {"insecure": True}, connect_timeout="200ms")
        async with running_gateway(document) as gateway:
            assert (await failure(gateway))[:2] == (504, "upstream-timeout")
            await gateway.until_quiet()
            with black_hole() as port:
                await gateway.serve(to(port, {"insecure": True}, connect_timeout="200ms"))
                assert (await failure(gateway))[:2] == (504, "upstream-timeout")


async def test_a_client_that_leaves_while_an_endpoint_shakes_hands_is_forgotten() -> None:
    async def silent(conversation: Conversation) -> None:
        await conversation.until_closed()

    async with upstream(silent) as app, running_gateway(to(app.port, {"insecure": True})) as gateway:
        async with connected(gateway.address) as client:
            await client.send(get())
            await wait_until(lambda: len(app.conversations) == 1, what="the handshake's begin")
            client.reset()
        await gateway.until_quiet()


async def test_an_endpoint_is_shown_our_certificate(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "a.example"), clients=True)
    ours = authority.issue("ours", "gateway.example")
    tls = {"ca": str(authority.file), "server_name": "a.example"}
    async with upstream(tls=server) as app, running_gateway(to(app.port, {**tls, **ours.words()})) as gateway:
        assert (await ask(gateway.address, get())).status == 200
        seen = app.conversations[0].tls.getpeercert()
        assert seen is not None
        assert int(str(seen["serialNumber"]), 16) == ours.serial


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_endpoint_that_wants_a_certificate_we_have_not_is_named_as_the_reason(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    server = authority.server_context(authority.issue("a", "a.example"), clients=True)
    server.maximum_version = version
    tls = {"ca": str(authority.file), "server_name": "a.example"}
    # (uvloop's TLS server hangs up without a word where OpenSSL has an alert to send, so this one is plain OpenSSL.)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with running_gateway(to(listener.getsockname()[1], tls)) as gateway:
            refused, (status, code, text) = await asyncio.gather(
                asyncio.to_thread(_refuse_one, listener, server), failure(gateway)
            )
            assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in refused
            assert (status, code) == (502, "upstream-tls-failed")
            assert "alert" in text
            await gateway.until_quiet()


def _refuse_one(listener: socket.socket, context: ssl.SSLContext) -> str:
    """Shake hands with one client; returns why that came to nothing, once the client has left."""
    listener.settimeout(PATIENCE_S)
    accepted, _ = listener.accept()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    with accepted:
        accepted.settimeout(PATIENCE_S)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                accepted.sendall(outgoing.read())
                incoming.write(accepted.recv(4096))
            except ssl.SSLError as error:
                accepted.sendall(outgoing.read())
                with contextlib.suppress(ConnectionError):
                    while accepted.recv(4096):  # to close over unread bytes would reset what has been said
                        pass
                return str(error)


async def test_a_new_identity_is_used_at_once_and_no_connection_of_the_old_one_again(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "a.example"), clients=True)
    old, new = authority.issue("old", "old.example"), authority.issue("new", "new.example")
    tls = {"ca": str(authority.file), "server_name": "a.example"}
    async with upstream(tls=server) as app, running_gateway(to(app.port, {**tls, **old.words()})) as gateway:
        assert (await ask(gateway.address, get())).status == 200
        await gateway.serve(to(app.port, {**tls, **new.words()}))
        await wait_until(lambda: _closed(app.conversations[0]), what="the old identity's connection to be closed")
        assert (await ask(gateway.address, get())).status == 200
        seen = app.conversations[1].tls.getpeercert()
        assert seen is not None
        assert int(str(seen["serialNumber"]), 16) == new.serial
        # A change elsewhere in the table leaves it open, and so does a reload with the same content.
        await gateway.serve({**to(app.port, {**tls, **new.words()}), "server": {"limits": {"headers": 50}}})
        assert (await ask(gateway.address, get())).status == 200
        assert len(app.conversations) == 2
        new.certificate.write_bytes(old.certificate.read_bytes())
        new.key.write_bytes(old.key.read_bytes())
        await wait_until(lambda: _closed(app.conversations[1]), what="the renewed identity")
        assert (await ask(gateway.address, get())).status == 200
        await gateway.serve(to(app.port, None))
        assert (await ask(gateway.address, get())).status == 502


def _closed(conversation: Conversation) -> bool:
    return conversation.closed


@pytest.mark.parametrize("missing", ["ca", "certificate"])
async def test_files_that_are_not_there_are_named_with_their_cluster(authority: Authority, missing: str) -> None:
    pair = authority.issue("a", "a.example")
    tls = {"ca": str(authority.file), **pair.words(), missing: "nowhere.pem"}
    async with running_gateway() as gateway:
        with pytest.raises(SnapshotRejected) as caught:
            await gateway.serve(to(1, tls))
        (problem,) = caught.value.problems
        assert problem["field"] == f"clusters.app.tls.{missing}"
        assert "nowhere.pem: cannot be read: No such file" in problem["reason"]


async def test_a_response_that_ends_without_close_notify_is_not_passed_on_as_whole(authority: Authority) -> None:
    server = authority.server_context(authority.issue("a", "a.example"))

    async def script(conversation: Conversation) -> None:
        asked = await conversation.request()
        await conversation.send(response(200, length=False, body=b"x" * 1000))
        if asked.target == "/cut":
            conversation.cut()
            await conversation.until_closed()
        else:
            await conversation.finish()

    tls = {"ca": str(authority.file), "server_name": "a.example"}
    async with upstream(script, tls=server) as app, running_gateway(to(app.port, tls)) as gateway:
        assert (await ask(gateway.address, get("/whole"))).body == b"x" * 1000
        async with connected(gateway.address) as client:
            await client.send(get("/cut"))
            with pytest.raises((CutOff, ConnectionError)):
                await client.response()


async def test_10_mb_go_both_ways_through_tls_with_back_pressure(authority: Authority) -> None:
    pair = authority.issue("a", "a.example")
    size = 10 << 20
    piece = bytes(range(256)) * 256

    async def script(conversation: Conversation) -> None:
        await conversation.request_head()
        digest = await conversation.skip(size)
        await conversation.send(response(200, f"content-length: {size}", f"x-digest: {digest.hex()}", length=False))
        for _ in range(size // len(piece)):
            await conversation.send(piece)
        await conversation.until_closed()

    document = to(1, {"ca": str(authority.file), "server_name": "a.example"})
    document["server"] = {"tls": pair.words()}
    whole = hashlib.sha256(piece * (size // len(piece))).digest()
    async with upstream(script, tls=authority.server_context(pair)) as app, running_gateway(document) as gateway:
        document["clusters"]["app"]["endpoints"][0]["port"] = app.port
        await gateway.serve(document)
        async with connected(gateway.address, tls=authority.client_context(), name="a.example", window=16384) as client:
            await client.send(request("POST", "/", f"content-length: {size}"))
            for _ in range(size // len(piece)):
                await client.send(piece)
            head = await client.head()
            assert head.value("x-digest") == whole.hex().encode()
            # Nobody reads now: what waits is in the kernel's buffers and the gateway's, and those are bounded.
            assert await client.skip(size) == whole
        await gateway.until_quiet()
