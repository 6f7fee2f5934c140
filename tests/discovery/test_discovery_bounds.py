"""How much a registry takes: no more than its operator allows, and it says so."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from toska_tests.clients import http_client
from toska_tests.discovery_rig import ConsulPort, RunningDiscovery, consul_port, discovery_in

REFUSAL = "the registry takes no more than 2 {}; an operator can raise TOSKA_DISCOVERY_MAX_INSTANCES"


@pytest.fixture
async def discovery(tmp_path: Path) -> AsyncGenerator[RunningDiscovery]:
    """With room for two: itself, and one more."""
    async with discovery_in(tmp_path, max_instances=2) as running:
        yield running


@pytest.fixture
async def port(discovery: RunningDiscovery) -> AsyncGenerator[ConsulPort]:
    async with consul_port("embedded", discovery.consul, discovery.credentials.admin) as opened:
        yield opened


async def register(port: ConsulPort, **body: Any) -> tuple[int, str]:
    answer = await port.put("agent/service/register", body)
    return answer.status, answer.text


async def test_one_instance_too_many_is_refused_and_those_there_can_still_change(
    discovery: RunningDiscovery, port: ConsulPort
) -> None:
    assert await register(port, Name="one", Port=9001) == (200, "")
    refused = (500, "rpc error making call: " + REFUSAL.format("instances"))
    assert await register(port, Name="two", Port=9002) == refused
    assert await register(port, Name="one", Port=9003, Tags=["moved"]) == (200, "")
    assert await register(port, Name="instead", Port=9003) == (200, "")
    foreign = {"Node": "n", "Address": "10.0.0.1", "Service": {"Service": "three"}}
    answer = await port.put("catalog/register", foreign)
    assert (answer.status, answer.text) == refused
    assert await port.read("catalog/node/n") is None
    async with http_client(base_url=discovery.rest, headers=discovery.bearer()) as http:
        body = {"service": "four", "address": "127.0.0.1", "port": 9004}
        problem = await http.post("/api/v1/services", json=body)
    assert (problem.status_code, problem.json()["type"]) == (503, "/problems/registry-full")
    await port.put("agent/service/deregister/instead")
    assert await register(port, Name="two", Port=9002) == (200, "")


async def test_one_node_too_many_is_refused(port: ConsulPort) -> None:
    for number in (1, 2):
        answer = await port.put("catalog/register", {"Node": f"n{number}", "Address": "10.0.0.1"})
        assert answer.status == 200
    answer = await port.put("catalog/register", {"Node": "n3", "Address": "10.0.0.1"})
    assert (answer.status, answer.text) == (500, "rpc error making call: " + REFUSAL.format("nodes"))
    assert (await port.put("catalog/register", {"Node": "n2", "Address": "10.0.0.2"})).status == 200
