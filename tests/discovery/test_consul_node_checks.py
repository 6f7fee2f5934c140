"""Consul's API for checks that are registered by themselves: of an instance, or of the node."""

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_tests.discovery_rig import ConsulPort
from toska_tests.waiting import wait_until

REGISTER = "agent/check/register"


@pytest.fixture
async def node_check(port: ConsulPort) -> AsyncGenerator[str]:
    """The id of a check that no other test has, taken away afterwards: a node's is seen with every service."""
    check_id = f"c-{uuid.uuid4().hex[:12]}"
    yield check_id
    await port.put(f"agent/check/deregister/{check_id}")


async def register(port: ConsulPort, path: str, **body: Any) -> None:
    answer = await port.put(path, body)
    assert (answer.status, answer.content) == (200, b"")


async def checks_of(port: ConsulPort, name: str) -> dict[str, str]:
    """The checks shown with the one instance of a service, and their verdicts; none while it is not listed."""
    found: list[dict[str, Any]] = await port.read(f"health/service/{name}")
    return {check["CheckID"]: check["Status"] for entry in found for check in entry["Checks"]}


async def until_checks(port: ConsulPort, name: str, expected: dict[str, str]) -> None:
    async def has_them() -> bool:
        return await checks_of(port, name) == {"serfHealth": "passing", **expected}

    await wait_until(has_them, what=f"{name} has the checks {expected}")


async def test_a_check_of_the_node_is_shown_with_every_instance_and_decides_whether_it_passes(
    port: ConsulPort, name: str, node_check: str
) -> None:
    await register(port, "agent/service/register", Name=name)
    await register(port, REGISTER, ID=node_check, Name="disk", TTL="1h", Notes="n", Status="warning")
    await until_checks(port, name, {node_check: "warning"})
    assert await port.read(f"health/service/{name}?passing") == []
    assert await port.read(f"health/checks/{name}") == []
    (found,) = [item for item in await port.read("health/state/warning") if item["CheckID"] == node_check]
    expected: dict[str, Any] = {
        "CheckID": node_check, "Name": "disk", "Status": "warning", "Notes": "n", "Output": "", "ServiceID": "",
        "ServiceName": "", "ServiceTags": [], "Type": "ttl", "Definition": {},
    }  # fmt: skip
    assert {**found, **expected} == found
    of_agent = (await port.read("agent/checks"))[node_check]
    assert of_agent == {**found, "CreateIndex": 0, "ModifyIndex": 0}
    await port.put(f"agent/check/pass/{node_check}")
    await until_checks(port, name, {node_check: "passing"})
    assert len(await port.read(f"health/service/{name}?passing")) == 1
    for _ in range(2):
        assert (await port.put(f"agent/check/deregister/{node_check}")).status == 200
    await until_checks(port, name, {})


async def test_a_change_of_a_check_of_the_node_wakes_those_who_wait_for_a_service(
    port: ConsulPort, name: str, node_check: str
) -> None:
    await register(port, "agent/service/register", Name=name)
    await register(port, REGISTER, ID=node_check, Name="disk", TTL="1h", Status="passing")
    await until_checks(port, name, {node_check: "passing"})
    index = (await port.get(f"health/service/{name}")).index
    await port.put(f"agent/check/fail/{node_check}")
    answer = await port.get(f"health/service/{name}?index={index}&wait=10s")
    assert answer.index > index
    await until_checks(port, name, {node_check: "critical"})


async def test_a_check_joins_an_instance_that_is_registered(port: ConsulPort, name: str) -> None:
    await register(port, "agent/service/register", Name=name, Tags=["a"], Check={"TTL": "1h", "Status": "passing"})
    await register(port, REGISTER, name=f"more-{name}", ttl="1h", service_id=name, status="passing")
    await until_checks(port, name, {f"service:{name}": "passing", f"more-{name}": "passing"})
    (found,) = [item for item in await port.read(f"health/checks/{name}") if item["CheckID"] == f"more-{name}"]
    assert (found["Name"], found["ServiceName"], found["ServiceTags"]) == (f"more-{name}", name, ["a"])
    assert (await port.put(f"agent/check/warn/more-{name}?note=hot")).status == 200
    await until_checks(port, name, {f"service:{name}": "passing", f"more-{name}": "warning"})
    assert (await port.put(f"agent/check/deregister/more-{name}")).status == 200
    await until_checks(port, name, {f"service:{name}": "passing"})


async def test_a_check_registered_again_keeps_its_verdict_and_takes_the_new_name(
    port: ConsulPort, node_check: str
) -> None:
    await register(port, REGISTER, ID=node_check, Name="one", TTL="1h", Status="passing")
    await port.put(f"agent/check/warn/{node_check}?note=hot")
    await register(port, REGISTER, ID=node_check, Name="two", TTL="1h", Status="passing")
    found = (await port.read("agent/checks"))[node_check]
    assert (found["Name"], found["Status"], found["Output"]) == ("two", "warning", "hot")


async def test_a_check_of_the_node_lapses_and_takes_nobody_with_it(
    port: ConsulPort, name: str, node_check: str
) -> None:
    await register(port, "agent/service/register", Name=name)
    await register(port, REGISTER, ID=node_check, Name="disk", TTL="300ms", Status="passing")
    await until_checks(port, name, {node_check: "critical"})
    assert (await port.read("agent/checks"))[node_check]["Output"] == "TTL expired"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"TTL": "1s"}, 400, "Missing check name"),
        ({"Name": "x", "TTL": "1s", "Status": "bad"}, 400, "Bad check status"),
        ({"Name": "x"}, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        ({"Name": "x", "Interval": "1s"}, 400, "Invalid check: TTL must be > 0 for TTL checks"),
        ({"Name": "x", "TTL": "1s", "Interval": "1s"}, 400, "Invalid check: Interval and TTL cannot both be specified"),
        (
            {"Name": "x", "HTTP": "http://a"},
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            {"Name": "x", "HTTP": "http://a", "TTL": "1s"},
            400,
            "Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks",
        ),
        (
            {"Name": "x", "TCP": "a:1", "Interval": "1s", "AliasService": "b"},
            400,
            "Invalid check: Interval cannot be set for Alias checks",
        ),
        (
            {"Name": "x", "AliasNode": "a", "TTL": "1s"},
            400,
            "Invalid check: TTL must be not be set for Alias checks",
        ),
        ({"Name": "x", "TTL": "1s", "OutputMaxSize": -1}, 400, "Invalid check: MaxOutputMaxSize must be positive"),
        ({"Name": "x", "TTL": "1s", "ServiceID": "none"}, 500, 'ServiceID "none" does not exist'),
        ({"Name": "x", "TTL": "bad"}, 400, 'Request decode failed: time: invalid duration "bad"'),
        (
            {"Name": "x", "ScriptArgs": "true"},
            400,
            "Request decode failed: json: cannot unmarshal string into Go struct field .ScriptArgs of type []string",
        ),
    ],
)
async def test_a_check_that_consul_refuses(port: ConsulPort, body: Any, status: int, text: str) -> None:
    answer = await port.put(REGISTER, body)
    assert (answer.status, answer.text) == (status, text)


async def test_a_check_to_deregister_must_be_named(port: ConsulPort) -> None:
    answer = await port.put("agent/check/deregister/")
    assert (answer.status, answer.text) == (500, "CheckID missing")


async def test_fields_may_be_written_in_any_case_and_some_with_underscores(port: ConsulPort, name: str) -> None:
    check = {
        "CHECKID": f"c-{name}", "name": "lease", "ttl": "1h", "status": "passing", "NOTES": "n",
        "deregister_critical_service_after": "10m", "script_args": None, "tls_skip_verify": False,
        "docker_container_id": "",
    }  # fmt: skip
    body = {
        "id": f"{name}-1", "NAME": name, "tags": ["a"], "port": 80, "enable_tag_override": True, "meta": {"k": "v"},
        "tagged_addresses": {"wan": {"address": "10.0.0.2", "PORT": 81}}, "weights": {"passing": 2, "warning": 1},
        "check": check, "kind": "", "proxy": None, "connect": None,
    }  # fmt: skip
    assert (await port.put("agent/service/register", body)).status == 200
    found = await port.read(f"agent/service/{name}-1")
    assert {**found, "ContentHash": ""} == {
        "ID": f"{name}-1", "Service": name, "Tags": ["a"], "Meta": {"k": "v"}, "Port": 80, "Address": "",
        "TaggedAddresses": {"wan": {"Address": "10.0.0.2", "Port": 81}}, "Weights": {"Passing": 2, "Warning": 1},
        "EnableTagOverride": True, "ContentHash": "",
    }  # fmt: skip
    shown = (await port.read("agent/checks"))[f"c-{name}"]
    assert (shown["Name"], shown["Status"], shown["Notes"], shown["ServiceID"]) == (
        "lease", "passing", "n", f"{name}-1",
    )  # fmt: skip
    await port.put(f"agent/service/deregister/{name}-1")
