"""Registries for the tests of the router: a real Consul, or discovery's own; and what a test registers."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_common.credentials import ensure_credentials
from toska_tests.canaries import GatewayEngine, Shop, open_shop
from toska_tests.discoveries import running_discovery
from toska_tests.registries import ConsulAgent, consul_agent
from toska_tests.routers import RunningRouter, StartRouter, running_router


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[ConsulAgent]:
    """One agent for the session; tests clean up behind them."""
    with consul_agent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture
def registry_kind() -> str:
    """Which registry a test runs on; modules whose tests hold for both override it."""
    return "consul"


@pytest.fixture
async def registry_url(registry_kind: str, home: Path, request: pytest.FixtureRequest) -> AsyncGenerator[str]:
    """Base URL of the registry's Consul HTTP API."""
    if registry_kind == "embedded":
        async with running_discovery(home) as url:
            yield url
    else:
        agent: ConsulAgent = request.getfixturevalue("agent")
        await agent.wait_until_ready()
        yield agent.url


@pytest.fixture
async def consul(registry_url: str, home: Path) -> AsyncGenerator[ConsulClient]:
    """A client of the registry; whatever is registered is gone after the test."""
    async with ConsulClient.open(registry_url, token=ensure_credentials(home).admin) as client:
        yield client
        for instance_id in await client.agent_services():
            await client.deregister_service(instance_id)


@pytest.fixture
def instance() -> Callable[..., ServiceRegistration]:
    """Makes registrations: an instance by its name and port."""

    def make(service: str, port: int = 9001, **options: Any) -> ServiceRegistration:
        options = {"id": f"{service}-{port}", "address": "127.0.0.1", **options}
        return ServiceRegistration(name=service, port=port, **options)

    return make


@pytest.fixture
def start_router(home: Path, registry_url: str, consul: ConsulClient) -> StartRouter:
    """Starts routers that follow the registry and live in the test's home."""

    def start(**options: Any) -> AbstractAsyncContextManager[RunningRouter]:
        return running_router(options.pop("home", home), options.pop("registry_url", registry_url), **options)

    return start


@pytest.fixture
def router_options() -> Mapping[str, str]:
    """Settings of `router`; modules that want other than the defaults override it."""
    return {}


@pytest.fixture
async def router(start_router: StartRouter, router_options: Mapping[str, str]) -> AsyncGenerator[RunningRouter]:
    """One router."""
    async with start_router(**router_options) as running:
        await running.snapshot()
        yield running


@pytest.fixture
def shop_engine() -> GatewayEngine:
    """What serves the `shop`; modules override it."""
    return "python"


@pytest.fixture
async def shop(router: RunningRouter, home: Path, shop_engine: GatewayEngine) -> AsyncGenerator[Shop]:
    """Two versions of an app behind a gateway of the router's, and clients that come all the time."""
    async with open_shop(router, home, engine=shop_engine) as shop:
        yield shop
