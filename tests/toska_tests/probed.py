"""What probes meet in tests: HTTP servers with canned answers, and gRPC servers with a health service."""

import ssl
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import grpc
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from toska_tests import parts

Reply = bytes | Callable[[SocketStream], Awaitable[None]]
"""What is written, or a function that sees to the connection."""


@dataclass(slots=True)
class CannedServer:
    """An HTTP/1.1 server that answers by path; each connection gets one answer.

    Attributes:
        answers: By path.
        requests: What came, heads and bodies.
    """

    port: int
    answers: dict[str, Reply] = field(default_factory=dict[str, Reply])
    requests: list[bytes] = field(default_factory=list[bytes])

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [request.split(b" ", 2)[1].decode() for request in self.requests]


def answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [
        f"HTTP/1.1 {status}",
        f"content-length: {len(body)}",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def canned_server(*, certificate: Path | None = None) -> AsyncGenerator[CannedServer]:
    """A server of the block's own on 127.0.0.1; one with TLS if it has a `certificate`."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server = CannedServer(listener.extra(SocketAttribute.local_port))  # noqa: S610 - anyio's, not Django's
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        listener = TLSListener(listener, context, standard_compatible=False)

    async def serve(stream: SocketStream) -> None:
        async with stream:
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    request += await stream.receive()
                head, _, body = request.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-len")
                    ),
                    0,
                )
                while len(body) < length:
                    body += await stream.receive()
                server.requests.append(head + b"\r\n\r\n" + body)
                reply = server.answers.get(head.split(b" ", 2)[1].decode(), answer("404 Not Found"))
                if isinstance(reply, bytes):
                    await stream.send(reply)
                else:
                    await reply(stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield server
        group.cancel_scope.cancel()


async def hang(_: SocketStream) -> None:
    """Never answer."""
    await anyio.sleep_forever()


def self_signed(folder: Path) -> Path:
    """A certificate for `localhost` that nobody trusts, and its key, in one PEM file."""
    file = folder / "certificate.pem"
    command = [parts.program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(
        [*command, "-keyout", file, "-out", folder / "public.pem"], check=True, capture_output=True, timeout=20
    )
    with file.open("ab") as joined:
        joined.write((folder / "public.pem").read_bytes())
    return file


@dataclass(slots=True)
class GrpcServer:
    """A gRPC server with a health service."""

    port: int
    servicer: Any

    async def say(self, service: str, *, serving: bool) -> None:
        """Have it answer for a service; "" is the server itself."""
        codes: Any = health_pb2.HealthCheckResponse
        await self.servicer.set(service, codes.SERVING if serving else codes.NOT_SERVING)


@asynccontextmanager
async def grpc_server(*, certificate: Path | None = None) -> AsyncGenerator[GrpcServer]:
    """A gRPC server of the block's own on 127.0.0.1; one with TLS if it has a `certificate`."""
    server = grpc.aio.server()
    generated: Any = health_pb2_grpc  # code without types
    module: Any = health
    servicer = module.aio.HealthServicer()
    generated.add_HealthServicer_to_server(servicer, server)
    if certificate is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pem = certificate.read_bytes()
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    await server.start()
    try:
        yield GrpcServer(port, servicer)
    finally:
        await server.stop(0)
