"""What an app lets others see of it: JSON logs with trace ids, spans over several processes, gRPC health."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from toska_tests.joined import Stage
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


class Collector:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[dict[str, Any]] = []

    async def receive(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`."""
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            service = {item.key: item.value.string_value for item in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "service": service,
                            "name": span.name,
                            "trace_id": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                        }
                    )
        return web.Response()


@pytest.fixture
async def collector() -> AsyncGenerator[Collector]:
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def test_one_trace_leads_through_calls_and_workers(stage: Stage, collector: Collector) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with stage.serve("traced", "--workers", "2", environment=environment) as shop:
        await stage.registry.wait_for("traced", 1)
        answer = await shop.get("/call/traced/context", headers=TRACEPARENT)
        assert answer.json()["trace_id"] == TRACE_ID
        await shop.get("/health/ready", headers=TRACEPARENT)
        await wait_until(lambda: len(collector.spans) >= 3, what="the spans arrive")
    spans = {span["name"]: span for span in collector.spans}
    assert len(spans) == len(collector.spans) == 3
    assert {(span["service"], span["trace_id"]) for span in spans.values()} == {("traced", TRACE_ID)}
    entry, call, served = (spans[name] for name in ("GET /call/{service}/{path:path}", "GET traced", "GET /context"))
    assert (entry["parent"], call["parent"], served["parent"]) == ("b7ad6b7169203331", entry["id"], call["id"])


async def test_logs_are_json_lines_of_the_request_they_belong_to(stage: Stage, tmp_path: Path) -> None:
    with stage.serve("logged") as shop:
        await stage.registry.wait_for("logged", 1)
        await shop.get("/crash", headers=TRACEPARENT)
        await wait_until(lambda: "request_crashed" in shop.program.stderr, what="the crash is logged")
        lines = [json.loads(line) for line in shop.program.stderr.splitlines() if line.startswith("{")]
    assert {line["service"] for line in lines} == {"logged"}
    [served] = [line for line in lines if line["event"] == "request_served"]
    [crashed] = [line for line in lines if line["event"] == "request_crashed"]
    assert (served["trace_id"], served["path"], served["status"]) == (TRACE_ID, "/crash", 500)
    assert crashed["trace_id"] == TRACE_ID
    assert "RuntimeError: the secret is 4711" in crashed["exception"]


async def test_grpc_health_answers_as_readiness_does(stage: Stage, tmp_path: Path) -> None:
    port, jam = free_port(), tmp_path / "jam"
    with stage.serve("grpc", environment={"SHOP_GRPC_PORT": str(port), "SHOP_TILL_JAM": str(jam)}):
        await stage.registry.wait_for("grpc", 1)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)

            async def status(service: str) -> int:
                request = health_pb2.HealthCheckRequest(service=service)
                return (await stub.Check(request, wait_for_ready=True, timeout=10)).status

            assert await status("grpc") == await status("") == health_pb2.HealthCheckResponse.SERVING
            watched = stub.Watch(health_pb2.HealthCheckRequest(service="grpc"), timeout=10)
            assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVING
            jam.touch()
            assert await status("grpc") == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await watched.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await status("nobody")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
