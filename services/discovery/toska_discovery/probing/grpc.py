"""gRPC checks: the health protocol says SERVING, for the server or for the service named after a slash.

One unary call over HTTP/2 by `h2` instead of grpcio: it connects where the dialler lets it, can leave a certificate
unverified, and a probe costs no channel with threads of its own.
Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
import contextlib
import ssl
from functools import cache
from typing import TYPE_CHECKING

import anyio
from toska_common.contracts.discovery import Health

from toska_discovery.check import Probe
from toska_discovery.probing.dialling import BadTarget, Dialler, split_address
from toska_discovery.probing.verdict import READ_MAX_BYTES, Verdict

if TYPE_CHECKING:
    from h2.connection import H2Connection

NOT_SERVING = "gRPC application didn't report service healthy"
SERVING = 1
_GOODBYE_S = 0.2

_CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
    "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip


class _CallFailed(Exception):
    """The call has no answer; the message has grpc-go's words."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"rpc error: code = {code} desc = {reason}")


class GrpcRunner:
    """Calls `grpc.health.v1.Health/Check`."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler

    async def run(self, probe: Probe, _output_max_bytes: int) -> Verdict:
        address, _, service = probe.target.partition("/")
        try:
            with anyio.fail_after(probe.timeout_s):
                answer = await self._call(address, service, probe)
        except TimeoutError:
            return Verdict(Health.CRITICAL, str(_CallFailed("DeadlineExceeded", "context deadline exceeded")))
        except _CallFailed as error:
            return Verdict(Health.CRITICAL, str(error))
        if answer != SERVING:
            return Verdict(Health.CRITICAL, NOT_SERVING)
        return Verdict(Health.PASSING, f"gRPC check {probe.target}: success")

    async def _call(self, address: str, service: str, probe: Probe) -> int:
        try:
            host, port = split_address(address)
            sock = await self._dialler.connect(host, port)
        except (OSError, BadTarget) as error:
            raise _CallFailed(
                "Unavailable", f'connection error: desc = "transport: Error while dialing {error}"'
            ) from error
        context = _tls(probe.tls_skip_verify) if probe.tls else None
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname=host if probe.tls else None
            )
        except (OSError, ssl.SSLError) as error:
            sock.close()
            reason = f'connection error: desc = "transport: authentication handshake failed: {error}"'
            raise _CallFailed("Unavailable", reason) from error
        except BaseException:
            sock.close()
            raise
        try:
            return await _Call(reader, writer).run("https" if probe.tls else "http", address, service)
        except OSError as error:
            raise _CallFailed("Unavailable", "connection closed") from error
        finally:
            await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Say goodbye, and wait for the other side to do so, but not long: until then TLS holds the socket open."""
    writer.close()
    with anyio.move_on_after(_GOODBYE_S, shield=True), contextlib.suppress(OSError):
        await writer.wait_closed()
    writer.transport.abort()


class _Call:
    """One call on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._body = bytearray()
        self._headers: dict[str, str] = {}

    async def run(self, scheme: str, authority: str, service: str) -> int:
        """The status that the server answers with.

        Raises:
            _CallFailed: It answers with none.
        """
        from h2.config import H2Configuration  # here, since most registries have no check of this kind
        from h2.connection import H2Connection
        from h2.exceptions import H2Error

        try:
            h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            h2.initiate_connection()
            _send_request(h2, scheme, authority, service)
            self._writer.write(h2.data_to_send())
            while not self._take(h2, await self._reader.read(65536)):
                self._writer.write(h2.data_to_send())
                await self._writer.drain()
        except (H2Error, UnicodeDecodeError) as error:
            raise _CallFailed("Unavailable", f"the server speaks no gRPC: {error}") from error
        return self._result()

    def _take(self, h2: "H2Connection", data: bytes) -> bool:
        """Take what came; whether that was all of the answer."""
        from h2 import events

        if not data:
            raise _CallFailed("Unavailable", "connection closed")
        for event in h2.receive_data(data):
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                self._headers |= {str(name): str(value) for name, value in event.headers or ()}
            elif isinstance(event, events.DataReceived):
                self._body += event.data or b""
                h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 1)
                if len(self._body) > READ_MAX_BYTES:
                    raise _CallFailed("ResourceExhausted", "the answer is too long")
            elif isinstance(event, events.StreamEnded):
                return True
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise _CallFailed("Unavailable", "the server ended the call")
        return False

    def _result(self) -> int:
        status = self._headers.get(":status", "")
        code = self._headers.get("grpc-status")
        if code is None and status != "200":
            raise _CallFailed("Unavailable", f"unexpected HTTP status code received from server: {status}")
        if code != "0":
            name = _CODES[int(code)] if code and code.isdigit() and int(code) < len(_CODES) else "Unknown"
            raise _CallFailed(name, self._headers.get("grpc-message", ""))
        return _decode_status(bytes(self._body[5:]))


def _send_request(h2: "H2Connection", scheme: str, authority: str, service: str) -> None:
    headers = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "Consul Health Check"),
    ]
    h2.send_headers(1, headers)
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    h2.send_data(1, b"\x00" + len(message).to_bytes(4, "big") + message, end_stream=True)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _decode_status(message: bytes) -> int:
    # HealthCheckResponse has one field: `status`, an enum, number 1; it is left out where it is 0.
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


@cache
def _tls(skip_verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
