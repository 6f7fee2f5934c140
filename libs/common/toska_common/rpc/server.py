"""A gRPC listener: a service of ours, the health protocol and reflection, in this event loop.

gRPC is loaded in a thread when it is about to be used: it takes a tenth of a second, in which others can start.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anyio
import structlog

from toska_common.errors import ConfigurationError
from toska_common.health import HealthChecks

if TYPE_CHECKING:
    import grpc.aio

log = structlog.get_logger(__name__)

STOP_WITHIN_S = 0.5
HEALTH_EVERY_S = 1.0
MAX_MESSAGE_BYTES = 1024 * 1024
_LOADED = ("grpc.aio", "grpc_health.v1.health", "grpc_reflection.v1alpha.reflection")
_OPTIONS = [
    # Without it the port would be shared silently with a stranger.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 2000),
]


class RpcServer:
    """Serves on a port of its own; `run` until cancelled.

    Args:
        add: Adds a servicer to a server, and returns the descriptor of its file.
        service: The servicer's full name.
        loaded: Modules that `add` imports, loaded in a thread before it is called.
        setting: The variable that names the port, for the error when it is taken.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        add: "Callable[[grpc.aio.Server], Any]",
        service: str,
        loaded: Sequence[str],
        setting: str,
        health: HealthChecks,
        ready: Callable[[], bool],
    ) -> None:
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._add = add
        self._service = service
        self._loaded = (*_LOADED, *loaded)
        self._setting = setting
        self._health = health
        self._ready = ready
        self.started = False

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            ConfigurationError: The port is taken.
        """
        await anyio.to_thread.run_sync(_load, self._loaded)
        server, health = self._build()
        await server.start()
        self.started = True
        log.info("grpc_started", address=self._address)
        try:
            await self._tell_health(health)
        finally:
            self.started = False
            with anyio.CancelScope(shield=True):
                await server.stop(STOP_WITHIN_S)

    def _build(self) -> "tuple[grpc.aio.Server, Any]":
        import grpc.aio
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection

        made: Any = (health_pb2_grpc, reflection, health)  # without types
        health_services, reflecting, checking = made
        server = grpc.aio.server(options=_OPTIONS)
        file = self._add(server)
        verdicts: Any = checking.aio.HealthServicer()
        health_services.add_HealthServicer_to_server(verdicts, server)
        names: Any = (file, health_pb2.DESCRIPTOR)
        service_names = [name for file in names for name in _service_names(file)]
        reflecting.enable_server_reflection([*service_names, reflecting.SERVICE_NAME], server)
        try:
            bound = server.add_insecure_port(self._address)
        except RuntimeError as error:
            bound, reason = 0, error
        else:
            reason = None
        if not bound:
            raise ConfigurationError(
                f"cannot listen on {self._address} for gRPC: stop what uses it, or set {self._setting}"
            ) from reason
        return server, verdicts

    async def _tell_health(self, verdicts: Any) -> None:
        from grpc_health.v1 import health_pb2

        states: Any = health_pb2.HealthCheckResponse
        told: Any = None
        while True:
            now = states.SERVING if self._ready() and not self._health.draining else states.NOT_SERVING
            if now != told:
                for name in ("", self._service):
                    await verdicts.set(name, now)
                told = now
            await anyio.sleep(HEALTH_EVERY_S if self._ready() else 0.05)


def _load(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def _service_names(file: Any) -> list[str]:
    return [service.full_name for service in file.services_by_name.values()]
