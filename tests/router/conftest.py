"""A Consul agent for all tests of the router, and what a test registers with it."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration
from toska_tests.registries import ConsulAgent, consul_agent
from toska_tests.routers import RunningRouter, running_router


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Generator[ConsulAgent]:
    """One agent for the session; tests clean up behind them."""
    with consul_agent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture
async def consul(agent: ConsulAgent) -> AsyncGenerator[ConsulClient]:
    """A client of the agent; whatever is registered is gone after the test."""
    await agent.wait_until_ready()
    async with ConsulClient.open(agent.url) as client:
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


StartRouter = Callable[..., AbstractAsyncContextManager[RunningRouter]]


@pytest.fixture
def start_router(home: Path, agent: ConsulAgent, consul: ConsulClient) -> StartRouter:
    """Starts routers that follow the agent and live in the test's home."""

    def start(**options: Any) -> AbstractAsyncContextManager[RunningRouter]:
        return running_router(options.pop("home", home), options.pop("registry_url", agent.url), **options)

    return start


@pytest.fixture
async def router(start_router: StartRouter) -> AsyncGenerator[RunningRouter]:
    """One router."""
    async with start_router() as running:
        await running.snapshot()
        yield running
