"""The all-in-one host of `toska up`: every control-plane service in one event loop, on sockets bound beforehand.

Start: discovery, events, router, gateway, each when the one before is ready, and the examples beside them. Stop: all
but discovery at once; discovery after them, or a moment later, so that whatever takes its registration back still finds
the registry.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from toska_common.clock import now_utc
from toska_common.collector import keep_collector_calm
from toska_common.meshfile import MeshFile, remove_mesh_file, write_mesh_file
from toska_common.server import Service
from toska_common.targets import TargetRules

from toska_cli.children import ChildSpec, NurseryHandle
from toska_cli.examples import TRY_PATH, ExampleProcesses, child_specs
from toska_cli.listening import check_free, claim
from toska_cli.plan import MeshPlan
from toska_cli.probe import wait_for_success
from toska_cli.stopping import stop_on_signal
from toska_cli.supervision import HostedService
from toska_cli.view import MeshView, PartView

_FIRST_ANSWERS_WITHIN_S = 10.0
_WITHDRAWALS_WITHIN_S = 0.7
"""How long discovery outlives the rest: enough to take registrations back, and within the time that a stop may take."""


class Reporter(Protocol):
    """Told of what happens, for whoever watches the command."""

    def started(self, name: str) -> None:
        """A part is ready."""
        ...

    def crashed(self, name: str, error: Exception, restart_in_s: float) -> None:
        """A service died, and is going to be started again."""
        ...

    def ready(self, mesh: MeshView) -> None:
        """Everything is."""
        ...

    def stopping(self) -> None:
        """The mesh was told to stop."""
        ...


class Host:
    """Runs what a plan says: `open` claims and builds, `run` runs, `close` gives the ports back.

    Args:
        plan: Settings that were checked.
        reporter: Told of what happens.
        nursery: Forked beforehand; `None` runs no examples.
        born_at: When the command was started, on the monotonic clock.
    """

    def __init__(self, plan: MeshPlan, reporter: Reporter, nursery: NurseryHandle | None, born_at: float) -> None:
        self._plan = plan
        self._reporter = reporter
        self._examples = None if nursery is None else ExampleProcesses(nursery)
        self._specs = _example_specs(plan)
        self._born_at = born_at
        self._services: list[HostedService] = []
        self._sockets = ExitStack()
        self._mesh_file = MeshFile(
            home=plan.home, pid=os.getpid(), started_at=now_utc(), urls=plan.urls, expose_by_default=plan.on_loopback
        )

    def open(self) -> None:
        """Claim every port, then start the examples and build the services.

        The examples are told to start first: they import on another core meanwhile, and their registrations wait in the
        listen queue of the registry.

        Raises:
            ConfigurationError: A port is taken, or a service cannot work with its settings.
        """
        plan = self._plan
        for listener in plan.gateway.listeners:
            if not listener.path:
                check_free(listener.host, listener.port)
        for address in [*plan.bound_later, *((spec.host, spec.port) for spec in self._specs)]:
            check_free(*address)
        claimed = {address: self._sockets.enter_context(claim(*address)) for address in plan.listeners}
        if self._examples is not None:
            self._examples.start(self._specs)
        for build in service_builders(plan):
            service = build()
            sockets = {listener.name: claimed[listener.host, listener.port] for listener in service.listeners}
            self._services.append(HostedService(service, build, sockets, on_restart=self._reporter.crashed))

    def close(self) -> None:
        """Close the sockets."""
        self._sockets.close()

    async def run(self) -> None:
        """Run until a signal stops the mesh.

        Raises:
            ExceptionGroup: With what kept a service from becoming ready.
        """
        try:
            async with anyio.create_task_group() as group:
                running = anyio.CancelScope()
                await group.start(stop_on_signal, lambda: self._stop(running), self._abandon)
                with running:
                    await self._start_parts(group)
                    await self._announce()
                    group.start_soon(keep_collector_calm)
                    await anyio.sleep_forever()
                await self._stop_parts()
                group.cancel_scope.cancel()
        finally:
            remove_mesh_file(self._mesh_file)

    async def _start_parts(self, group: TaskGroup) -> None:
        if self._examples is not None:
            group.start_soon(self._examples.follow)
        for service in self._services:
            await group.start(service.run)
            self._reporter.started(service.name)

    async def _stop_parts(self) -> None:
        discovery, *others = self._services
        async with anyio.create_task_group() as group:
            if self._examples is not None:
                group.start_soon(self._examples.stop)
            for service in others:
                service.stop()
            with anyio.move_on_after(_WITHDRAWALS_WITHIN_S):
                for service in others:
                    await service.wait_ended()
            discovery.stop()
            for service in self._services:
                await service.wait_ended()

    async def _announce(self) -> None:
        write_mesh_file(self._mesh_file)
        with anyio.move_on_after(_FIRST_ANSWERS_WITHIN_S):
            # Ready is what answers: a gateway that has started still waits for its first snapshot.
            await wait_for_success(f"{self._plan.urls['gateway_admin']}/health/ready")
            await wait_for_success(self._first_url())
        self._reporter.ready(self._view())

    def _stop(self, running: anyio.CancelScope) -> None:
        self._reporter.stopping()
        running.cancel()

    def _abandon(self) -> None:
        if self._examples is not None:
            self._examples.kill()
        remove_mesh_file(self._mesh_file)

    def _view(self) -> MeshView:
        urls = self._plan.urls
        states = {service.name: service.state for service in self._services}
        parts = [
            PartView("gateway", states["gateway"], urls["gateway"], "send requests here"),
            PartView("gateway admin", states["gateway"], urls["gateway_admin"]),
            PartView("discovery", states["discovery"], urls["discovery"]),
            PartView("registry", states["discovery"], urls["registry"], "Consul's HTTP API"),
            PartView("router", states["router"], urls["router"]),
            PartView("events", states["events"], urls["events"]),
        ]
        if "dns" in urls:
            parts.append(PartView("dns", states["discovery"], urls["dns"], "NAME.service.consul"))
        if "xds" in urls:
            parts.append(PartView("xds", states["router"], urls["xds"], "for Envoys and gRPC clients"))
        if "discovery_grpc" in urls:
            parts.append(PartView("discovery grpc", states["discovery"], urls["discovery_grpc"]))
        if "events_grpc" in urls:
            parts.append(PartView("events grpc", states["events"], urls["events_grpc"]))
        if self._examples is not None:
            parts += [
                PartView(spec.name, self._examples.states[spec.name], f"http://{spec.host}:{spec.port}", "example")
                for spec in self._specs
            ]
        return MeshView(
            home=str(self._plan.home),
            pid=os.getpid(),
            ready_in_s=round(time.monotonic() - self._born_at, 2),
            urls=urls,
            parts=tuple(parts),
            docs=f"{urls['gateway']}/docs" if self._plan.gateway.management_on_data_listener else None,
            try_it=(f"curl {self._first_url()}",),
        )

    def _first_url(self) -> str:
        """Something that answers 200; examples have routes of their own on loopback only, where no stranger comes."""
        urls = self._plan.urls
        if self._examples is not None and self._plan.on_loopback:
            return urls["gateway"] + TRY_PATH
        if self._plan.on_loopback:
            return f"{urls['gateway']}/api/v1/services"
        return f"{urls['gateway_admin']}/health/ready"


def service_builders(plan: MeshPlan) -> list[Callable[[], Service]]:
    """How each service is made; discovery, which the others register with, comes first."""
    import toska_discovery.app
    import toska_events.app
    import toska_gateway.app
    import toska_router.app

    targets = TargetRules(frozenset([*plan.listeners, *plan.bound_later]))
    return [
        lambda: toska_discovery.app.create_service(plan.discovery, targets=targets),
        lambda: toska_events.app.create_service(plan.events),
        lambda: toska_router.app.create_service(plan.router),
        lambda: toska_gateway.app.create_service(plan.gateway),
    ]


def _example_specs(plan: MeshPlan) -> list[ChildSpec]:
    if plan.examples_from is None:
        return []
    environment = {
        # Said outright, since mesh.json is there only once everything is ready.
        "TOSKA_HOME": str(plan.home),
        "TOSKA_REGISTRY_URL": plan.urls["registry"],
        "TOSKA_JOIN_TOKEN_FILE": str(plan.home / "join.token"),
        "TOSKA_EXPOSE": str(plan.on_loopback).lower(),
    }
    return child_specs("127.0.0.1", plan.examples_from, plan.home, environment)
