"""What operators reach of the router through the gateway's address."""

from pathlib import Path

from toska_gateway.settings import Settings
from toska_gateway.system_routes import build_system_routes
from toska_tests.routers import RunningRouter

PER_SERVICE = {"/api/v1/status"}
"""What every service has at the same path, so that the gateway's address can lead to none of them."""


async def test_every_operation_is_behind_one_of_the_gateways_own_routes(router: RunningRouter, home: Path) -> None:
    described = (await router.http.get("/openapi.json")).raise_for_status().json()
    routes = build_system_routes(Settings(home=home)).table.routes
    prefixes = tuple(route.match.path_prefix for route in routes if route.to[0].cluster == "toska-router")
    operations = {path for path in described["paths"] if path.startswith("/api/v1/")} - PER_SERVICE
    led = {path for path in operations for prefix in prefixes if prefix and f"{path}/".startswith(f"{prefix}/")}
    assert operations == led
    assert "/api/v1/rollouts/{name}" in operations
