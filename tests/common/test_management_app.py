"""What every listener of our services offers: errors, health, metrics, traces and docs, without a network."""

import re
from datetime import timedelta

import anyio
import httpx
import pytest
from fastapi import FastAPI
from toska_common.apps import create_management_app
from toska_common.docs import swagger_page
from toska_common.health import HealthChecks, Kind, Status
from toska_common.trace import current_trace_id


def client_of(app: FastAPI, root_path: str = "") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://shop")


@pytest.fixture
def health() -> HealthChecks:
    return HealthChecks("shop", "1.0")


async def test_docs_need_nothing_from_outside(health: HealthChecks) -> None:
    app = create_management_app("Shop </script>", health=health)
    async with client_of(app, "/shop") as client:
        page = (await client.get("/docs")).text
        assets = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert assets
        for asset in assets:
            assert asset.startswith("/shop/docs/")
            answer = await client.get(asset.removeprefix("/shop"))
            assert answer.status_code == 200
            assert len(answer.content) > 500
        assert '"url": "/shop/openapi.json"' in page
        assert page.count("</script>") == 2
        assert (await client.get("/openapi.json")).json()["info"]["title"] == "Shop </script>"
        assert (await client.get("/redoc")).status_code == 404


def test_docs_page_escapes_what_it_is_given() -> None:
    page = swagger_page('"><script>', urls=[{"name": "</script><script>alert(1)"}])
    assert page.count("<script") == 2


async def test_management_paths_are_not_in_the_schema_and_errors_are_problems(health: HealthChecks) -> None:
    app = create_management_app("Shop", health=health)
    async with client_of(app) as client:
        assert (await client.get("/openapi.json")).json()["paths"] == {}
        assert (await client.get("/nowhere")).json()["type"] == "/problems/not-found"
        assert (await client.post("/health/live")).status_code == 405
        await client.get("/nowhere/else")
        assert 'route="(unmatched)",status="404"} 2.0' in (await client.get("/metrics")).text


async def test_trace_of_the_caller_is_the_trace_of_the_answer(health: HealthChecks) -> None:
    app = create_management_app("Shop", health=health)

    @app.get("/trace")
    async def trace() -> str:
        return current_trace_id()

    async with client_of(app) as client:
        answer = await client.get("/trace", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert answer.json() == "a" * 32


async def test_openmetrics_is_answered_to_who_asks_for_it(health: HealthChecks) -> None:
    async with client_of(create_management_app("Shop", health=health)) as client:
        answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")


async def test_check_that_hangs_cannot_hang_a_probe(health: HealthChecks) -> None:
    health.add("stuck", anyio.sleep_forever, timeout=timedelta(milliseconds=50))
    with anyio.fail_after(20):
        assert await health.status(Kind.READY) is Status.UNHEALTHY
        report = await health.report()
    assert report["components"]["stuck"]["reason"] == "no answer within 0.05 s"


async def test_checks_run_side_by_side(health: HealthChecks) -> None:
    met = anyio.Event()

    async def first() -> None:
        await met.wait()

    async def second() -> None:
        met.set()

    health.add("first", first)
    health.add("second", second)
    assert await health.status(Kind.READY) is Status.HEALTHY


async def test_liveness_and_readiness_have_checks_of_their_own(health: HealthChecks) -> None:
    health.add("store", lambda: False)
    assert await health.status(Kind.LIVE) is Status.HEALTHY
    assert await health.status(Kind.READY) is Status.UNHEALTHY
    health.remove("store")
    health.add("deadlock", lambda: False, kind=Kind.LIVE)
    assert await health.status(Kind.LIVE) is Status.UNHEALTHY
    assert await health.status(Kind.READY) is Status.HEALTHY


async def test_what_has_not_started_is_not_ready_and_what_has_stays_started(health: HealthChecks) -> None:
    warm = False
    health.add("cache", lambda: warm, kind=Kind.STARTUP)
    assert await health.status(Kind.STARTUP) is Status.UNHEALTHY
    assert await health.status(Kind.READY) is Status.UNHEALTHY
    warm = True
    assert await health.status(Kind.STARTUP) is Status.HEALTHY
    warm = False
    assert await health.status(Kind.STARTUP) is Status.HEALTHY
    assert await health.status(Kind.READY) is Status.HEALTHY


async def test_being_alive_is_not_having_started(health: HealthChecks) -> None:
    warm = False
    health.add("cache", lambda: warm, kind=Kind.STARTUP)
    assert await health.status(Kind.LIVE) is Status.HEALTHY
    assert await health.status(Kind.READY) is Status.UNHEALTHY
    assert await health.status(Kind.STARTUP) is Status.UNHEALTHY


async def test_draining_fails_readiness_alone(health: HealthChecks) -> None:
    health.draining = True
    assert await health.status(Kind.READY) is Status.DRAINING
    assert await health.status(Kind.LIVE) is Status.HEALTHY
    assert (await health.report())["status"] == "draining"
