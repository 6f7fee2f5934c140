"""Caches of the control plane that look again when events say so, and by questions and clocks while there are none."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from toska_common.contracts.discovery import META_OPENAPI
from toska_tests.control import ControlMesh, control_mesh, web_server
from toska_tests.waiting import wait_until

DOCUMENT = {"openapi": "3.1.0", "info": {"title": "Orders", "version": "1"}, "paths": {}}


class Service:
    """A service that has its document wherever it is looked for, and notes where that was."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.is_broken = False

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.fetched.append(request.path)
        return web.Response(status=500) if self.is_broken else web.json_response(DOCUMENT)


@pytest.fixture
async def mesh(home: Path) -> AsyncGenerator[ControlMesh]:
    async with control_mesh(home, "discovery", "router", "events", "gateway") as mesh:
        await mesh.until_answered(f"{mesh.admin}/health/ready")
        yield mesh


async def handled(mesh: ControlMesh, base: str, handler: str) -> float:
    text = (await mesh.get(f"{base}/metrics", headers=mesh.bearer())).text
    wanted = f'toska_events_handled_total{{handler="{handler}",outcome="handled"}}'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(wanted))


async def until_heard(mesh: ControlMesh, port: int) -> None:
    """Have an instance come and go until the gateway hears of it: a subscription begins some time after a start."""

    async def is_heard() -> bool:
        await mesh.register("early", port, meta={META_OPENAPI: ""})
        await mesh.deregister(f"early-{port}")
        return await handled(mesh, mesh.admin, "mesh") > 0

    await wait_until(is_heard, what="the gateway hears of instances", every=0.1)


async def test_a_document_that_moved_is_fetched_before_anybody_asks_for_it(mesh: ControlMesh) -> None:
    service = Service()
    async with web_server(service) as port:
        await until_heard(mesh, port)
        await mesh.register("orders", port)
        await mesh.until_answered(f"{mesh.data}/api/v1/openapi/orders")
        await mesh.register("orders", port, meta={META_OPENAPI: "/v2.json"})  # which no route depends on
        await wait_until(lambda: "/v2.json" in service.fetched, what="the document is fetched from its new place")
    assert await handled(mesh, mesh.router, "registry") > 0


async def test_a_document_that_could_not_be_had_is_tried_when_something_becomes_of_its_service(
    mesh: ControlMesh,
) -> None:
    service = Service()
    service.is_broken = True
    async with web_server(service) as port, web_server(service) as other:
        await until_heard(mesh, port)
        await mesh.register("orders", port)

        async def is_missing() -> bool:
            found = (await mesh.get(f"{mesh.data}/api/v1/openapi")).raise_for_status().json()
            return any(item["service"] == "orders" and item["state"] == "missing" for item in found)

        await wait_until(is_missing, what="the document is known to be missing", every=0.1)
        service.is_broken, tried = False, len(service.fetched)
        await mesh.register("orders", other, meta={META_OPENAPI: ""})  # which changes nothing of who offers it
        # Nobody asks, so that nothing but the event can be why.
        await wait_until(lambda: len(service.fetched) > tried, what="the document is tried again")


async def test_without_events_documents_are_fetched_when_somebody_asks_and_the_loss_is_said_once(
    mesh: ControlMesh,
) -> None:
    service = Service()
    async with web_server(service) as port:
        await until_heard(mesh, port)
        with capture_logs() as logs:
            await mesh.stop("events")
            await mesh.register("orders", port)
            await mesh.until_answered(f"{mesh.data}/api/v1/openapi/orders")
            await mesh.register("orders", port, meta={META_OPENAPI: "/v2.json"})

            async def is_fetched() -> bool:
                await mesh.get(f"{mesh.data}/api/v1/openapi")
                return "/v2.json" in service.fetched

            await wait_until(is_fetched, what="the document is fetched from its new place", every=0.1)
            await mesh.stop("router")
            await mesh.start_router()
            await mesh.register("payments", port)
            await mesh.until_answered(f"{mesh.data}/payments/")
    said = [entry["event"] for entry in logs if entry["log_level"] in ("warning", "error") or "event" in entry["event"]]
    assert said.count("event_log_lost") <= 3, said  # each of the three that were connected says it once
    assert not [event for event in said if "subscription" in event]
