"""What an app answers once it has joined, and what stays as its author made it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.testclient import TestClient
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from toska_common import Mesh
from toska_common.errors import ConfigurationError, Conflict
from toska_common.http_context import remaining_s
from toska_common.trace import current_trace_id

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


def client_of(app: FastAPI, peer: tuple[str, int] = ("127.0.0.1", 40000)) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=peer)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


# Errors


async def test_framework_errors_are_problem_documents(app: FastAPI) -> None:
    Mesh(app, name="shop")

    @app.get("/items/{item_id}")
    async def get_item(item_id: int) -> int:
        raise HTTPException(410, detail={"gone": "for good"}, headers={"x-reason": "old"})

    async with client_of(app) as client:
        missing, wrong_method = await client.get("/nowhere"), await client.delete("/items/1")
        wrong_value, gone = await client.get("/items/x"), await client.get("/items/1")
    for answer, status, kind in (
        (missing, 404, "not-found"),
        (wrong_method, 405, "method-not-allowed"),
        (wrong_value, 422, "invalid-input"),
        (gone, 410, "gone"),
    ):
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.json()["type"] == f"/problems/{kind}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json()["trace_id"]) == 32
    assert wrong_method.headers["allow"] == "GET"
    assert wrong_value.json()["problems"][0]["field"] == "path.item_id"
    assert gone.json()["errors"] == {"gone": "for good"}
    assert gone.headers["x-reason"] == "old"


async def test_errors_of_the_mesh_keep_their_fields_and_crashes_keep_their_secrets(app: FastAPI) -> None:
    Mesh(app, name="shop")

    @app.get("/taken")
    async def taken() -> None:
        raise Conflict("somebody else has it", holder="me")

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("the secret is 4711")

    async with client_of(app) as client:
        conflict = await client.get("/taken")
        crashed = await client.get("/crash", headers={"traceparent": TRACEPARENT})
    assert (conflict.status_code, conflict.json()["holder"]) == (409, "me")
    assert (crashed.status_code, crashed.json()["trace_id"]) == (500, TRACE_ID)
    assert "4711" not in crashed.text


async def test_error_handlers_of_the_author_stay(app: FastAPI) -> None:
    Mesh(app, name="shop")

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> Response:
        return PlainTextResponse("mine", error.status_code)

    @app.exception_handler(StarletteHTTPException)
    async def on_starlette(_: Request, __: StarletteHTTPException) -> Response:
        return PlainTextResponse("mine as well", 404)

    @app.exception_handler(500)
    async def on_crash(_: Request, __: Exception) -> Response:
        return PlainTextResponse("mine too", 500)

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(410)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError

    async with client_of(app) as client:
        assert (await client.get("/gone")).text == "mine"
        assert (await client.get("/nowhere")).text == "mine as well"
        assert (await client.get("/crash")).text == "mine too"


# Health and metrics


async def test_health_tells_what_the_checks_of_the_author_say(app: FastAPI) -> None:
    broken = False

    async def check_store() -> None:
        if broken:
            raise ConnectionError("the store is away")

    Mesh(app, name="shop", version="7", checks={"store": check_store})
    async with client_of(app) as client:
        assert (await client.get("/health/ready")).text == "OK"
        broken = True
        ready, live, started = [await client.get(f"/health/{kind}") for kind in ("ready", "live", "startup")]
        detailed = await client.get("/health/detailed")
    assert (ready.status_code, ready.text) == (503, "unhealthy")
    assert (live.status_code, started.status_code) == (200, 200)
    assert detailed.status_code == 503
    assert (detailed.json()["service"], detailed.json()["version"]) == ("shop", "7")
    assert detailed.json()["components"]["store"]["reason"] == "ConnectionError: the store is away"


async def test_routes_of_the_author_win_where_they_are_meant(app: FastAPI) -> None:
    Mesh(app, name="shop")
    router = APIRouter(prefix="/health")

    @router.get("")
    async def own_health() -> str:
        return "mine"

    app.include_router(router)

    @app.get("/{page:path}")
    async def catch_all(page: str) -> str:
        return f"page {page}"

    async with client_of(app) as client:
        assert (await client.get("/health")).json() == "mine"
        assert (await client.get("/health/ready")).text == "OK"
        assert "toska_http_requests_total" in (await client.get("/metrics")).text
        assert (await client.get("/anything")).json() == "page anything"


async def test_metrics_name_routes_by_their_templates_and_leave_probes_out(app: FastAPI) -> None:
    Mesh(app, name="shop")
    router, inner = APIRouter(prefix="/v1"), FastAPI()

    @router.get("/items/{item_id}")
    async def get_item(item_id: int) -> int:
        return item_id

    @inner.get("/things/{thing}")
    async def get_thing(thing: str) -> str:
        return thing

    app.include_router(router, prefix="/api")
    app.mount("/inner", inner)
    async with client_of(app) as client:
        for path in ("/api/v1/items/1", "/api/v1/items/2", "/inner/things/a", "/nowhere/1", "/health/live"):
            await client.get(path, headers={"x-forwarded-prefix": "/shop"})
        await client.request("BREW", "/nowhere")
        text = (await client.get("/metrics")).text
    counted = {line.split(" ")[0] for line in text.splitlines() if line.startswith("toska_http_requests_total")}
    assert counted == {
        'toska_http_requests_total{method="GET",route="/api/v1/items/{item_id}",status="200"}',
        'toska_http_requests_total{method="GET",route="/inner/things/{thing}",status="200"}',
        'toska_http_requests_total{method="GET",route="(unmatched)",status="404"}',
        'toska_http_requests_total{method="(other)",route="(unmatched)",status="404"}',
    }
    assert 'route="/api/v1/items/{item_id}",status="200"} 2.0' in text


# Behind a gateway


@pytest.fixture
def prefixed(app: FastAPI) -> FastAPI:
    Mesh(app, name="shop", trusted_proxies=["10.0.0.0/8"])

    @app.get("/old")
    async def old(request: Request) -> RedirectResponse:
        return RedirectResponse(request.url_for("new"))

    @app.get("/new/")
    async def new(request: Request) -> str:
        return request.scope["root_path"]

    return app


async def test_urls_lead_back_through_the_gateways_prefix(prefixed: FastAPI) -> None:
    async with client_of(prefixed) as client:
        client.headers["x-forwarded-prefix"] = "/shop"
        assert (await client.get("/old")).headers["location"] == "http://shop/shop/new/"
        assert (await client.get("/new")).headers["location"] == "http://shop/shop/new/"
        assert (await client.get("/new/")).json() == "/shop"
        assert (await client.get("/openapi.json")).json()["servers"] == [{"url": "/shop"}]
        assert "'/shop/openapi.json'" in (await client.get("/docs")).text


async def test_prefix_joins_the_root_path_that_the_app_has(app: FastAPI) -> None:
    app.root_path = "/v2"
    Mesh(app, name="shop")

    @app.get("/here")
    async def here(request: Request) -> list[str]:
        return [request.scope["root_path"], str(request.url_for("here"))]

    async with client_of(app) as client:
        answer = await client.get("/here", headers={"x-forwarded-prefix": "/shop"})
    assert answer.json() == ["/shop/v2", "http://shop/shop/v2/here"]


@pytest.mark.parametrize(
    ("peer", "believed"),
    [
        (("127.0.0.1", 1), True),
        (("::1", 1), True),
        (("10.1.2.3", 1), True),
        (("203.0.113.9", 0), True),  # put there by uvicorn, which believed its peer
        (("203.0.113.9", 1), False),
        (("testclient", 1), False),
    ],
)
async def test_only_a_known_peer_can_set_a_prefix(prefixed: FastAPI, peer: tuple[str, int], believed: bool) -> None:
    async with client_of(prefixed, peer) as client:
        answer = await client.get("/new/", headers={"x-forwarded-prefix": "/shop"})
    assert answer.json() == ("/shop" if believed else "")


@pytest.mark.parametrize("prefix", ["shop", "//evil.example", "/a//b", "/../x", "/a?b", "/a b", "/", "/ä"])
async def test_prefix_that_is_no_path_is_ignored(prefixed: FastAPI, prefix: str) -> None:
    async with client_of(prefixed) as client:
        answer = await client.get("/new/", headers=[(b"x-forwarded-prefix", prefix.encode())])
    assert answer.json() == ""


# Context


async def test_trace_and_deadline_of_a_request_are_known_where_it_is_served(app: FastAPI) -> None:
    Mesh(app, name="shop")

    @app.get("/context")
    async def context() -> list[Any]:
        return [current_trace_id(), remaining_s()]

    async with client_of(app) as client:
        answer = await client.get("/context", headers={"traceparent": TRACEPARENT, "x-toska-deadline-ms": "5000"})
        trace_id, left = answer.json()
        assert trace_id == TRACE_ID
        assert 4 < left <= 5
        other, none = (await client.get("/context", headers={"x-toska-deadline-ms": "soon"})).json()
        assert len(other) == 32
        assert other != TRACE_ID
        assert none is None


async def test_instrumentation_that_the_author_adds_works_on_both_sides(app: FastAPI) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    Mesh(app, name="shop")
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)

    @app.get("/traced")
    async def traced() -> str:
        return current_trace_id()

    async with client_of(app) as client:
        assert (await client.get("/traced", headers={"traceparent": TRACEPARENT})).json() == TRACE_ID
        assert (await client.get("/health/ready")).text == "OK"
    assert {f"{span.context.trace_id:032x}" for span in spans.get_finished_spans() if span.context} >= {TRACE_ID}


async def test_middleware_of_the_author_runs_inside_and_in_its_order(app: FastAPI) -> None:
    Mesh(app, name="shop")
    seen: list[str] = []

    class Noting:
        def __init__(self, app: Any, name: str) -> None:
            self.app, self.name = app, name

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                seen.append(f"{self.name} {scope['root_path']} {current_trace_id() == TRACE_ID}")
            await self.app(scope, receive, send)

    app.add_middleware(Noting, name="inner")
    app.add_middleware(Noting, name="outer")
    async with client_of(app) as client:
        await client.get("/x", headers={"x-forwarded-prefix": "/shop", "traceparent": TRACEPARENT})
    assert seen == ["outer /shop True", "inner /shop True"]


# Under a test client


async def test_nothing_registers_and_nothing_waits_under_a_test_client(app: FastAPI) -> None:
    connections = 0

    async def count(stream: SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.aclose()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, count)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
        Mesh(app, name="shop", registry_url=f"http://127.0.0.1:{port}")

        def use() -> None:
            with TestClient(app) as client:
                assert client.get("/health/ready").text == "OK"
                assert client.get("/metrics").status_code == 200

        with anyio.fail_after(20):
            await anyio.to_thread.run_sync(use)
        assert connections == 0
        group.cancel_scope.cancel()


async def test_failing_start_of_the_app_fails_as_without_a_mesh() -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        raise RuntimeError("no database")
        yield

    app = FastAPI(lifespan=lifespan)
    Mesh(app, name="shop")
    with pytest.raises(RuntimeError, match="no database"):
        await anyio.to_thread.run_sync(lambda: TestClient(app).__enter__())


# Wrong settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOSKA_LEASE_TTL", "15"),
        ("TOSKA_LEASE_TTL", "10ms"),
        ("TOSKA_REGISTRY_URL", "localhost:8500"),
        ("TOSKA_ADVERTISE_PORT", "70000"),
        ("TOSKA_ADVERTISE_ADDRESS", "not a host"),
        ("TOSKA_TRUSTED_PROXIES", "10.0.0.0/99"),
        ("TOSKA_EXPOSE", "perhaps"),
    ],
)
def test_wrong_variable_is_named_with_the_reason(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        Mesh(app, name="shop")


@pytest.mark.parametrize("name", ["Orders", "my_orders", "-a", "a" * 64, "", "toska-orders"])
def test_name_that_is_no_dns_label_or_is_the_meshs_own_is_refused(app: FastAPI, name: str) -> None:
    with pytest.raises(ConfigurationError, match="Mesh"):
        Mesh(app, name=name)


def test_logging_that_is_set_up_is_left_alone(app: FastAPI) -> None:
    before = [*logging.getLogger().handlers]
    assert before, "pytest has handlers of its own"
    Mesh(app, name="shop")
    assert logging.getLogger().handlers == before
