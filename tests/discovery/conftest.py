"""Registries that answer: ours and a real Consul, both as processes, so that one suite can ask both."""

import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from toska_common.clients.consul import ConsulClient
from toska_tests.clients import NO_TLS, http_client
from toska_tests.discovery_rig import (
    ConsulPort,
    RunningDiscovery,
    RunningRegistry,
    consul_port,
    discovery_in,
    discovery_process,
)
from toska_tests.probed import CannedServer, canned_server, self_signed
from toska_tests.registries import consul_agent
from toska_tests.waiting import wait_until


@pytest.fixture(scope="session")
def embedded_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningRegistry]:
    """Discovery with its own registry, as a process."""
    with discovery_process(tmp_path_factory.mktemp("embedded")) as process:
        _wait_until_it_leads(process.consul)
        yield RunningRegistry("embedded", process.consul, process.token, process.dns_port)


@pytest.fixture(scope="session")
def consul_registry(tmp_path_factory: pytest.TempPathFactory) -> Generator[RunningRegistry]:
    """A real Consul."""
    with consul_agent(tmp_path_factory.mktemp("consul")) as agent:
        _wait_until_it_leads(agent.url)
        yield RunningRegistry("consul", agent.url, "", agent.dns_port)


@pytest.fixture(scope="session", params=["embedded", "consul"])
def registry(request: pytest.FixtureRequest) -> RunningRegistry:
    """Each registry in turn."""
    return request.getfixturevalue(f"{request.param}_registry")


@pytest.fixture
async def ours(embedded_registry: RunningRegistry) -> AsyncGenerator[ConsulPort]:
    """The Consul API of our registry, for where it is stricter than Consul, or not as far."""
    async with _port_of(embedded_registry) as opened:
        yield opened


@pytest.fixture
async def port(registry: RunningRegistry) -> AsyncGenerator[ConsulPort]:
    """The Consul API of each registry in turn."""
    async with _port_of(registry) as opened:
        yield opened


@pytest.fixture
async def consul(registry: RunningRegistry) -> AsyncGenerator[ConsulClient]:
    """Our client, talking to each registry in turn."""
    async with ConsulClient.open(registry.url, token=registry.token) as client:
        yield client


@pytest.fixture(scope="module", params=["embedded", "consul"])
async def discovery(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RunningDiscovery]:
    """Discovery on each registry in turn."""
    home = tmp_path_factory.mktemp("home")
    options: dict[str, Any] = {}
    if request.param == "consul":
        registry: RunningRegistry = request.getfixturevalue("consul_registry")
        options["registry_url"] = registry.url.replace("http://", "consul://")
    async with discovery_in(home, **options) as running:
        yield running


@pytest.fixture
async def http(discovery: RunningDiscovery) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with the join token, which is all that an app has."""
    async with http_client(base_url=discovery.rest, headers=discovery.bearer("join")) as client:
        yield client


@pytest.fixture
async def server() -> AsyncGenerator[CannedServer]:
    """A server that answers what a test puts into it."""
    async with canned_server() as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody vouches for, with its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def name() -> str:
    """A service that nobody else has."""
    return f"s-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def _port_of(registry: RunningRegistry) -> AsyncGenerator[ConsulPort]:
    """A registry's Consul API; what was registered through it goes with it, or it is probed to the end of the run."""
    async with consul_port(registry.kind, registry.url, registry.token) as opened:
        there = await opened.read("agent/services"), await opened.read("agent/checks")
        yield opened
        for service in (await opened.read("agent/services")).keys() - there[0].keys():
            await opened.put(f"agent/service/deregister/{quote(service, safe='')}")
        for check in (await opened.read("agent/checks")).keys() - there[1].keys():
            await opened.put(f"agent/check/deregister/{quote(check, safe='')}")


def _wait_until_it_leads(url: str) -> None:
    async def leads() -> bool:
        # A real Consul has a leader before its own node is in the catalog.
        try:
            async with httpx.AsyncClient(base_url=url, verify=NO_TLS) as client:
                answers = [await client.get(f"/v1/{path}") for path in ("catalog/nodes", "status/leader")]
            return all(answer.json() for answer in answers)
        except (httpx.TransportError, ValueError):
            return False

    async def wait() -> None:
        await wait_until(leads, what=f"a registry at {url}", every=0.05)

    anyio.run(wait)
