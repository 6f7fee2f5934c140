"""The server's gRPC side: a listener, and for each stream a session with two directions. Loads gRPC when imported."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from toska_router.xds.access import AccessRefused, AddressTaken, Admit, Caller, ServerTls, TlsNow, admit_everybody
from toska_router.xds.exchange import Node
from toska_router.xds.loads import METHOD, SERVICE, LoadReports, read_load_request, write_load_response
from toska_router.xds.methods import Method, list_methods
from toska_router.xds.session import RequestRefused, Session
from toska_router.xds.wire import read_delta_request, read_state_request

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""A client of 100,000 clusters names them all in one request."""

_OPTIONS = [
    # Without it the port would be shared silently with a stranger.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 100),
    # Clients that are gone without a word are found out, and those that ask us in turn are answered.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
]

OpenSession = Callable[[Method, str, Caller], AbstractAsyncContextManager[Session]]

_grpc: Any = grpc  # its types are incomplete


def build_server(
    open_session: OpenSession,
    host: str,
    port: int,
    tls: TlsNow | None,
    admit: Admit = admit_everybody,
    loads: LoadReports | None = None,
) -> tuple[grpc.aio.Server, int]:
    """A server that is bound and not started, and its port; it takes reports if `loads` says how.

    Raises:
        AddressTaken: Somebody else listens there.
        ValueError: The certificate or its key cannot be used.
    """
    server = grpc.aio.server(options=_OPTIONS)
    verified = tls is not None and tls().client_ca is not None
    services: dict[str, dict[str, Any]] = {}
    for method in list_methods():
        handler = _grpc.stream_stream_rpc_method_handler(_Handler(open_session, method, verified=verified).serve)
        services.setdefault(method.service, {})[method.name] = handler
    if loads is not None:
        reports = _LoadHandler(loads, admit, verified=verified)
        services[SERVICE] = {METHOD: _grpc.stream_stream_rpc_method_handler(reports.serve)}
    server.add_generic_rpc_handlers(
        tuple(_grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items())
    )
    return server, _bind(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", tls)


def _bind(server: grpc.aio.Server, address: str, tls: TlsNow | None) -> int:
    try:
        bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise AddressTaken(f"cannot listen on {address}") from error
    if not bound:
        raise AddressTaken(f"cannot listen on {address}")
    return bound


def _credentials(now: TlsNow) -> Any:
    """Credentials that follow `now`: whoever connects gets the newest, and streams that are open stay."""
    shown = now()

    def renew() -> Any:
        nonlocal shown
        if (newest := now()) is shown:
            return None  # as before
        shown = newest
        return _configuration(newest)

    asks = shown.client_ca is not None
    return _grpc.dynamic_ssl_server_credentials(_configuration(shown), renew, require_client_authentication=asks)


def _configuration(tls: ServerTls) -> Any:
    return _grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], tls.client_ca)


class _Handler:
    """Serves the streams of one method."""

    def __init__(self, open_session: OpenSession, method: Method, *, verified: bool) -> None:
        self._open_session = open_session
        self._method = method
        self._verified = verified
        self._read = read_delta_request if method.incremental else read_state_request

    async def serve(self, _requests: Any, context: Any) -> None:
        """One stream, until the client ends it or is turned away."""
        try:
            async with self._open_session(self._method, context.peer(), _caller(context, self._verified)) as session:
                await self._converse(session, context)
        except AccessRefused as error:
            await _turn_away(context, error)
        except RequestRefused as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def _converse(self, session: Session, context: Any) -> None:
        failures: list[Exception] = []

        async def listen(scope: anyio.CancelScope) -> None:
            try:
                while (data := await context.read()) is not _grpc.aio.EOF:
                    session.take(self._read(data))
            except DecodeError as error:
                failures.append(RequestRefused(f"this is no request of the protocol: {error}"))
            except (AccessRefused, RequestRefused) as error:
                failures.append(error)
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen, group.cancel_scope)
            await session.speak(context.write)
        if failures:
            raise failures[0]


class _LoadHandler:
    """Takes the reports of one client after another."""

    def __init__(self, loads: LoadReports, admit: Admit, *, verified: bool) -> None:
        self._loads = loads
        self._admit = admit
        self._verified = verified

    async def serve(self, _requests: Any, context: Any) -> None:
        """One stream: the client says who it is, is told how often to report, and reports."""
        try:
            self._admit(_caller(context, self._verified), "")
            await self._listen(context)
        except AccessRefused as error:
            await _turn_away(context, error)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"this is no report: {error}")

    async def _listen(self, context: Any) -> None:
        node: Node | None = None
        while (data := await context.read()) is not _grpc.aio.EOF:
            said, loads = read_load_request(data)
            if node is None:
                node = said or Node()
                await context.write(write_load_response(self._loads.interval_s))
            if loads:
                self._loads.take(node, context.peer(), loads)


def _caller(context: Any, verified: bool) -> Caller:
    metadata = {key.lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Caller(metadata, verified)


async def _turn_away(context: Any, error: AccessRefused) -> None:
    code = grpc.StatusCode.PERMISSION_DENIED if error.known else grpc.StatusCode.UNAUTHENTICATED
    await context.abort(code, str(error))
