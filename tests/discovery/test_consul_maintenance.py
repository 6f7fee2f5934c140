"""Consul's API for taking instances and the node out of service, and for asking an agent how its instances are."""

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_tests.discovery_rig import ConsulPort
from toska_tests.waiting import wait_until

NO_REASON = "Maintenance mode is enabled for this {}, but no reason was provided. This is a default message."


@pytest.fixture
async def name(port: ConsulPort) -> AsyncGenerator[str]:
    """A service that no other test has, with the passing instances `NAME-1` and `NAME-2`."""
    service = f"s-{uuid.uuid4().hex[:12]}"
    for number in (1, 2):
        body = {"ID": f"{service}-{number}", "Name": service, "Port": 20000 + number}
        await put(port, "agent/service/register", {**body, "Check": {"TTL": "1h", "Status": "passing"}})
    yield service
    for number in (1, 2):
        await put(port, f"agent/service/deregister/{service}-{number}")


@pytest.fixture
async def node_in_service(port: ConsulPort) -> AsyncGenerator[None]:
    """The node is in service afterwards, whatever happens."""
    yield
    await put(port, "agent/maintenance?enable=false")


async def put(port: ConsulPort, path: str, body: Any = None) -> None:
    answer = await port.put(path, body)
    assert (answer.status, answer.content) == (200, b"")


async def until_passing(port: ConsulPort, name: str, count: int) -> None:
    async def are_so_many() -> bool:
        return len(await port.read(f"health/service/{name}?passing")) == count

    await wait_until(are_so_many, what=f"{count} of {name} pass")


async def text_of(port: ConsulPort, path: str) -> tuple[int, str]:
    """The status and the word that a load balancer reads."""
    answer = await port.get(f"agent/health/service/{path}?format=text")
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["x-consul-reason"] == answer.text
    return answer.status, answer.text


async def test_an_instance_in_maintenance_is_not_passing_until_it_leaves_it(port: ConsulPort, name: str) -> None:
    await until_passing(port, name, 2)
    for query, notes in (("", NO_REASON.format("service")), ("&reason=a+new+disk", "a new disk")):
        await put(port, f"agent/service/maintenance/{name}-1?enable=true{query}")
        await until_passing(port, name, 1)
        check = (await port.read("agent/checks"))[f"_service_maintenance:{name}-1"]
        assert (check["Name"], check["Status"], check["Notes"], check["Type"], check["ServiceID"]) == (
            "Service Maintenance Mode", "critical", notes, "maintenance", f"{name}-1",
        )  # fmt: skip
        # Once in maintenance the first reason stays.
        await put(port, f"agent/service/maintenance/{name}-1?enable=true&reason=another")
        assert (await port.read("agent/checks"))[f"_service_maintenance:{name}-1"]["Notes"] == notes
        for _ in range(2):
            await put(port, f"agent/service/maintenance/{name}-1?enable=false")
        await until_passing(port, name, 2)


async def test_maintenance_outlives_a_new_registration(port: ConsulPort, name: str) -> None:
    await put(port, f"agent/service/maintenance/{name}-1?enable=true")
    await put(port, "agent/service/register", {"ID": f"{name}-1", "Name": name, "Port": 20001, "Tags": ["new"]})
    assert await text_of(port, f"id/{name}-1") == (503, "maintenance")
    answer = await port.put(f"agent/check/pass/_service_maintenance:{name}-1")
    text = f'CheckID "_service_maintenance:{name}-1" does not have associated TTL'
    assert (answer.status, answer.text) == (500, text)
    await put(port, f"agent/service/maintenance/{name}-1?enable=false")


@pytest.mark.usefixtures("node_in_service")
async def test_nothing_on_a_node_in_maintenance_is_passing(port: ConsulPort, name: str) -> None:
    await until_passing(port, name, 2)
    await put(port, "agent/maintenance?enable=true&reason=kernel")
    await until_passing(port, name, 0)
    check = (await port.read("agent/checks"))["_node_maintenance"]
    assert (check["Name"], check["Status"], check["Notes"], check["Type"], check["ServiceID"]) == (
        "Node Maintenance Mode", "critical", "kernel", "maintenance", "",
    )  # fmt: skip
    assert await text_of(port, f"id/{name}-1") == (503, "maintenance")
    assert await text_of(port, f"name/{name}") == (503, "maintenance")
    await put(port, "agent/maintenance?enable=false")
    await until_passing(port, name, 2)
    await put(port, "agent/maintenance?enable=true")
    assert (await port.read("agent/checks"))["_node_maintenance"]["Notes"] == NO_REASON.format("node")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("agent/maintenance", 400, "Missing value for enable"),
        ("agent/maintenance?enable=maybe", 400, 'Invalid value for enable: "maybe"'),
        ("agent/service/maintenance/none", 400, "Missing value for enable"),
        ("agent/service/maintenance/none?enable=maybe", 400, 'Invalid value for enable: "maybe"'),
        ("agent/service/maintenance/none?enable=true", 404, 'No service registered with ID "none"'),
        ("agent/service/maintenance/?enable=true", 400, "Missing service ID"),
    ],
)
async def test_a_switch_that_consul_refuses(port: ConsulPort, path: str, status: int, text: str) -> None:
    answer = await port.put(path)
    assert (answer.status, answer.text) == (status, text)


async def test_the_state_of_instances_is_a_status_and_a_word(port: ConsulPort, name: str) -> None:
    for verb, expected in (("pass", (200, "passing")), ("warn", (429, "warning")), ("fail", (503, "critical"))):
        await put(port, f"agent/check/{verb}/service:{name}-2")
        assert await text_of(port, f"id/{name}-2") == expected
        assert await text_of(port, f"name/{name}") == expected
        assert await text_of(port, f"id/{name}-1") == (200, "passing")
        for path in (f"id/{name}-2", f"name/{name}"):
            answer = await port.get(f"agent/health/service/{path}")
            assert (answer.status, answer.headers["x-consul-reason"]) == expected
            assert answer.headers["content-type"] == "application/json"


async def test_the_state_of_instances_comes_with_their_checks(port: ConsulPort, name: str) -> None:
    await put(port, f"agent/check/warn/service:{name}-2?note=hot")
    found = await port.read(f"agent/health/service/id/{name}-2")
    definition = {
        "Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s", "HTTP": "", "Header": None,
        "Method": "", "Body": "", "TLSSkipVerify": False, "TCP": "",
    }  # fmt: skip
    check: dict[str, Any] = {
        "CheckID": f"service:{name}-2", "Name": f"Service '{name}' check", "Status": "warning", "Notes": "",
        "Output": "hot", "ServiceID": f"{name}-2", "ServiceName": name, "ServiceTags": None, "Type": "",
        "Definition": definition, "CreateIndex": 0, "ModifyIndex": 0,
    }  # fmt: skip
    shown = {item["CheckID"]: item for item in found["Checks"]}[f"service:{name}-2"]
    node = (await port.read("agent/self"))["Config"]["NodeName"]
    assert shown == {"Node": node, **check}
    assert [*found] == ["AggregatedStatus", "Service", "Checks"]
    assert found["AggregatedStatus"] == "warning"
    assert found["Service"] == (await port.read("agent/services"))[f"{name}-2"]
    listed = await port.read(f"agent/health/service/name/{name}")
    states = {entry["Service"]["ID"]: entry["AggregatedStatus"] for entry in listed}
    assert states == {f"{name}-1": "passing", f"{name}-2": "warning"}


async def test_an_instance_without_checks_is_passing_for_its_agent(port: ConsulPort, name: str) -> None:
    await put(port, "agent/service/register?replace-existing-checks=true", {"ID": f"{name}-1", "Name": name})
    assert await text_of(port, f"id/{name}-1") == (200, "passing")
    found = await port.read(f"agent/health/service/id/{name}-1")
    assert (found["AggregatedStatus"], found["Checks"] or []) == ("passing", [])


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("id/none", 404, '{"AggregatedStatus":"critical","Service":null,"Checks":null}'),
        ("id/none?format=text", 404, '"ServiceIdnonenotfound"'),
        ("name/none", 404, "[]"),
        ("name/none?format=text", 404, "ServiceNamenoneNotFound"),
        ("id/", 500, "Badrequest:MissingserviceID"),
        ("name/", 500, "Badrequest:MissingserviceName"),
    ],
)
async def test_the_state_of_what_is_not_there(port: ConsulPort, path: str, status: int, body: str) -> None:
    answer = await port.get(f"agent/health/service/{path}")
    assert (answer.status, "".join(answer.text.split())) == (status, body)


async def test_telemetry_is_there_as_a_document(port: ConsulPort) -> None:
    found = await port.read("agent/metrics")
    assert [*found] == ["Timestamp", "Gauges", "Points", "Counters", "Samples"]
    assert {*found["Gauges"][0]} == {"Name", "Value", "Labels"}
    assert {*found["Counters"][0]} == {
        "Name", "Count", "Rate", "Sum", "Min", "Max", "Mean", "Stddev", "Labels",
    }  # fmt: skip
    assert (await port.get("agent/metrics?format=prometheus")).status == 415


async def test_members_of_a_segment_are_not_known(port: ConsulPort) -> None:
    answer = await port.get("agent/members?segment=x")
    assert (answer.status, answer.text) == (500, "Network segments are not supported in this version of Consul")
