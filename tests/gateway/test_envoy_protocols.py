"""HTTP/2, gRPC, gRPC-Web and HTTP/3 through a real Envoy."""

import socket
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from anyio import to_thread
from grpc_health.v1 import health_pb2, health_pb2_grpc
from toska_gateway.errors import SnapshotRejected
from toska_tests.certificates import Authority, Pair
from toska_tests.envoys import EnvoyGateway, running_envoy
from toska_tests.gateways import cluster, route, running_gateway
from toska_tests.probed import GrpcServer, grpc_server
from toska_tests.raw_http import connect, request
from toska_tests.waiting import wait_until

_UNKNOWN_VERSION = bytes.fromhex("1a2a3a4a")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
async def service() -> AsyncGenerator[GrpcServer]:
    async with grpc_server() as server:
        await server.say("shop", serving=True)
        yield server


@pytest.fixture(scope="module")
async def envoy(authority: Authority, service: GrpcServer) -> AsyncGenerator[EnvoyGateway]:
    pair = authority.issue("localhost", "localhost", "127.0.0.1")
    document: dict[str, Any] = {
        "server": {"tls": pair.words()},
        "clusters": {"app": {"endpoints": [{"address": "127.0.0.1", "port": service.port}], "protocol": "http2"}},
        "routes": [{"name": "all", "match": {"path_prefix": "/"}, "to": "app"}],
    }
    listen = ("http://127.0.0.1:0", "https://127.0.0.1:0?http3=on")
    async with running_envoy(document, listen=listen) as running:
        yield running


async def _status(channel: Any) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    message: Any = health_pb2
    answer = await stub.Check(message.HealthCheckRequest(service="shop"), timeout=20)
    return answer.status


async def test_our_own_workers_refuse_what_only_envoy_speaks() -> None:
    document = {"clusters": {"app": {**cluster(9001), "protocol": "http2"}}, "routes": [route("all")]}
    async with running_gateway() as gateway:
        with pytest.raises(SnapshotRejected, match=r"clusters\.app\.protocol: .*--engine envoy"):
            await gateway.serve(document)


async def test_grpc_passes_in_the_clear(envoy: EnvoyGateway) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.port(0)}") as channel:
        assert await _status(channel) == 1


async def test_grpc_passes_over_tls(envoy: EnvoyGateway, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{envoy.port(1)}", credentials) as channel:
        assert await _status(channel) == 1


async def test_a_browser_speaks_grpc_web(envoy: EnvoyGateway) -> None:
    message: Any = health_pb2
    body = message.HealthCheckRequest(service="shop").SerializeToString()
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    client = await connect(("127.0.0.1", envoy.port(0)))
    answer = await client.ask(
        request("POST", "/grpc.health.v1.Health/Check", "Content-Type: application/grpc-web+proto", body=framed)
    )
    await client.aclose()
    assert answer.status == 200
    assert (answer.value("content-type") or b"").startswith(b"application/grpc-web")
    assert answer.body.startswith(b"\0\0\0\0\x02\x08\x01")  # a message: SERVING
    assert b"grpc-status:0" in answer.body.replace(b" ", b"")


async def test_tls_clients_are_offered_http2_and_told_of_http3(envoy: EnvoyGateway, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2", "http/1.1"])

    def chosen() -> str | None:
        with (
            socket.create_connection(("127.0.0.1", envoy.port(1)), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.selected_alpn_protocol()

    assert await to_thread.run_sync(chosen) == "h2"
    client = await connect(("127.0.0.1", envoy.port(0)))
    answer = await client.ask(request("POST", "/grpc.health.v1.Health/Check", body=b""))
    await client.aclose()
    assert answer.value("alt-svc") == f'h3=":{envoy.port(1)}"; ma=86400'.encode()


async def test_a_renewed_certificate_is_shown_without_a_restart(authority: Authority, service: GrpcServer) -> None:
    pair = authority.issue("renewed", "localhost", "127.0.0.1")
    document = {
        "server": {"tls": pair.words()},
        "clusters": {"app": cluster(service.port)},
        "routes": [route("all")],
    }

    def shown(port: int) -> int:
        context = ssl.create_default_context(cafile=str(authority.file))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return int(str((secure.getpeercert() or {})["serialNumber"]), 16)

    async with running_envoy(document, listen=("https://127.0.0.1:0",)) as envoy:
        pid, port = envoy.pid, envoy.port(0)
        assert await to_thread.run_sync(shown, port) == pair.serial
        renewed = authority.issue("renewed", "localhost", "127.0.0.1")

        async def is_shown() -> bool:
            return await to_thread.run_sync(shown, port) == renewed.serial

        await wait_until(is_shown, within=20, what="the new certificate", every=0.1)
        assert envoy.pid == pid


async def test_an_endpoint_has_to_be_who_it_says_it_is(authority: Authority, tmp_path: Path) -> None:
    async with grpc_server(certificate=_joined(authority.issue("upstream", "shop.test"), tmp_path)) as server:
        await server.say("shop", serving=True)
        here = {"address": "127.0.0.1", "port": server.port}
        tls = {"ca": str(authority.file)}
        clusters = {
            "right": {"endpoints": [here], "protocol": "http2", "tls": {**tls, "server_name": "shop.test"}},
            "wrong": {"endpoints": [here], "protocol": "http2", "tls": {**tls, "server_name": "other.test"}},
        }
        routes = [
            route("right", "/", "right"),
            {"name": "wrong", "match": {"path_prefix": "/", "headers": {"x-wrong": "1"}}, "to": "wrong"},
        ]
        async with running_envoy({"clusters": clusters, "routes": routes}) as envoy:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.port(0)}") as channel:
                assert await _status(channel) == 1
            client = await connect(envoy.address)
            answer = await client.ask(request("POST", "/", "x-wrong: 1", body=b""))
            await client.aclose()
            assert (answer.status, answer.value("x-toska-error")) == (502, b"upstream-connect-failed")


def _joined(pair: Pair, folder: Path) -> Path:
    """A certificate and its key in one file."""
    file = folder / "joined.pem"
    file.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    return file


async def test_quic_is_spoken_on_the_same_port(envoy: EnvoyGateway) -> None:
    """RFC 9000 §6: a version that a server does not know is answered with those that it does."""
    ours, theirs = b"\x01" * 8, b"\x02" * 8
    packet = b"\xc0" + _UNKNOWN_VERSION + b"\x08" + theirs + b"\x08" + ours
    async with await anyio.create_connected_udp_socket("127.0.0.1", envoy.port(1)) as udp:
        with anyio.fail_after(20):
            while True:
                await udp.send(packet.ljust(1200, b"\0"))
                with anyio.move_on_after(1):
                    answer = await udp.receive()
                    break
    assert answer[1:5] == bytes(4)  # version negotiation
    assert (1).to_bytes(4, "big") in [answer[at : at + 4] for at in range(23, len(answer), 4)]
