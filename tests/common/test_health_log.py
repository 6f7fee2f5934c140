"""What is logged when a service's health changes."""

import httpx
import pytest
import structlog
from fastapi import FastAPI
from toska_common.health import HealthChecks


@pytest.fixture
def switch() -> dict[str, bool]:
    return {"ready": False}


async def _logged(health: HealthChecks) -> list[tuple[str, str]]:
    app = FastAPI()
    health.add_to(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with structlog.testing.capture_logs() as lines:
            await client.get("/health/ready")
    return [(line["log_level"], line["status"]) for line in lines if line["event"] == "health_changed"]


async def test_a_service_that_starts_is_no_warning_and_one_that_falls_ill_is(switch: dict[str, bool]) -> None:
    health = HealthChecks("toska-test", "1")
    health.add("switch", lambda: switch["ready"])
    assert await _logged(health) == [("info", "unhealthy")]
    assert await _logged(health) == []
    switch["ready"] = True
    assert await _logged(health) == [("info", "healthy")]
    switch["ready"] = False
    assert await _logged(health) == [("warning", "unhealthy")]
