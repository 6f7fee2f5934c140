"""The gateway's admin listener: its app, its guard and its health, and the service around them."""

from fastapi import FastAPI
from toska_common import __version__
from toska_common.apps import create_management_app
from toska_common.health import HealthChecks
from toska_common.metrics import ServiceMetrics
from toska_common.security import ManagementGuard, ManagementPolicy, host_names
from toska_common.server import Listener, Service

from toska_gateway.handlers import add_handlers, scrape_route
from toska_gateway.parts import PartsSlot
from toska_gateway.settings import Settings

DESCRIPTION = """The edge of the mesh: how its workers are, which routes they serve, and one document over the APIs of
all services.

Changes need the admin token; reads are open on loopback. Every answer that is not 2xx is a problem document."""


class Admin:
    """What every gateway has, whatever it serves.

    Attributes:
        slot: Takes the gateway's parts once they are open.
        credentials: The tokens of its mesh.
        health: Its checks.
        metrics: Takes further series of this process.
        app: Takes further handlers.
        service: Takes a lifespan.
    """

    def __init__(self, settings: Settings) -> None:
        self.slot = PartsSlot()
        self.credentials = settings.credentials()
        self.health = HealthChecks("toska-gateway", __version__)
        self.metrics = metrics = ServiceMetrics()
        self.app: FastAPI = create_management_app(
            "Toska Mesh: gateway", description=DESCRIPTION, health=self.health, metrics=metrics
        )
        self.app.router.routes.insert(0, scrape_route(self.slot, metrics))
        add_handlers(self.app, self.slot)
        policy = ManagementPolicy(
            credentials=self.credentials,
            host=settings.bound_admin_host,
            allowed_hosts=host_names(settings.allowed_hosts),
        )
        listener = Listener("admin", settings.bound_admin_host, settings.admin_port, ManagementGuard(self.app, policy))
        self.service = Service("gateway", [listener])
        self.health.add("listening", lambda: self.service.ready)
        self.health.add("routing", self._check_routing)
        self.health.add("workers", self._check_workers)

    def crash(self, error: Exception) -> None:
        """Stop the service; its `on_crash` is looked up now, since `serve` sets it once the lifespan is open."""
        self.service.on_crash(error)

    def _check_routing(self) -> None:
        parts = self.slot.find()
        if parts is None or parts.routing.current is None:
            raise LookupError("there is no snapshot yet: neither from the router nor in the state folder")

    def _check_workers(self) -> None:
        parts = self.slot.find()
        if parts is None or not any(worker.state == "running" for worker in parts.data_plane.workers()):
            raise LookupError("no worker is running")
