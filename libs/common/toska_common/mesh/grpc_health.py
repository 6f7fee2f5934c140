"""The gRPC health protocol on a port of its own, answering from the same checks as `/health/ready`.

Needs the extra `toska-common[grpc]`. Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import anyio
import structlog

from toska_common.errors import ConfigurationError
from toska_common.health import HealthChecks, Kind, Status

log = structlog.get_logger(__name__)

WATCH_POLL_S = 1.0
STOP_WITHIN_S = 0.5


def require_grpc() -> None:
    """See that the extra is installed.

    Raises:
        ConfigurationError: It is not.
    """
    if find_spec("grpc") is None or find_spec("grpc_health") is None:
        raise ConfigurationError("gRPC health needs the extra: pip install 'toska-common[grpc]'")


async def serve_grpc_health(health: HealthChecks, host: str, port: int) -> None:
    """Answer `grpc.health.v1.Health` for the whole server ("") and for the service's name, until cancelled."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    names = {"", health.service}
    generated: Any = health_pb2_grpc  # code without types
    answers: Any = health_pb2.HealthCheckResponse

    async def current() -> Any:
        status = await health.status(Kind.READY)
        return answers(status=answers.SERVING if status is Status.HEALTHY else answers.NOT_SERVING)

    class Servicer(health_pb2_grpc.HealthServicer):
        async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
            if request.service not in names:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
            return await current()

        async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the protocol's name
            if request.service not in names:
                yield answers(status=answers.SERVICE_UNKNOWN)
                return
            last: Any = None
            while True:
                answer = await current()
                if last is None or answer.status != last.status:
                    yield answer
                    last = answer
                await anyio.sleep(WATCH_POLL_S)

    server = grpc.aio.server()
    generated.add_HealthServicer_to_server(Servicer(), server)
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    log.info("grpc_health_started", port=port)
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop(STOP_WITHIN_S)
