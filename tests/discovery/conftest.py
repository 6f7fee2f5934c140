"""Registries that answer: ours and a real Consul, both as processes, so that one suite can ask both."""

import contextlib
import time
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest
from toska_common.clients.consul import ConsulClient
from toska_tests.discovery_rig import ConsulPort, RunningRegistry, consul_port, discovery_process
from toska_tests.registries import consul_agent


@pytest.fixture(scope="session")
def embedded_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningRegistry]:
    """Discovery with its own registry, as a process."""
    with discovery_process(tmp_path_factory.mktemp("embedded")) as process:
        _wait_until_it_leads(process.consul)
        yield RunningRegistry("embedded", process.consul, process.token)


@pytest.fixture(scope="session")
def consul_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningRegistry]:
    """A real Consul."""
    with consul_agent(tmp_path_factory.mktemp("consul")) as agent:
        _wait_until_it_leads(agent.url)
        yield RunningRegistry("consul", agent.url, "")


@pytest.fixture(scope="session", params=["embedded", "consul"])
def registry(request: pytest.FixtureRequest) -> RunningRegistry:
    """Each registry in turn."""
    return request.getfixturevalue(f"{request.param}_registry")


@pytest.fixture
async def ours(embedded_registry: RunningRegistry) -> AsyncGenerator[ConsulPort]:
    """The Consul API of our registry, for where it is stricter than Consul, or not as far."""
    async with consul_port(embedded_registry.kind, embedded_registry.url, embedded_registry.token) as opened:
        yield opened


@pytest.fixture
async def port(registry: RunningRegistry) -> AsyncGenerator[ConsulPort]:
    """The Consul API of each registry in turn."""
    async with consul_port(registry.kind, registry.url, registry.token) as opened:
        yield opened


@pytest.fixture
async def consul(registry: RunningRegistry) -> AsyncGenerator[ConsulClient]:
    """Our client, talking to each registry in turn."""
    async with ConsulClient.open(registry.url, token=registry.token) as client:
        yield client


def _wait_until_it_leads(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # A real Consul has a leader before its own node is in the catalog.
        with contextlib.suppress(httpx.TransportError, ValueError):
            if httpx.get(f"{url}/v1/catalog/nodes").json() and httpx.get(f"{url}/v1/status/leader").json():
                return
        time.sleep(0.05)
    raise AssertionError(f"no registry at {url}")
