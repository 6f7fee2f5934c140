"""Consul's API for services and checks: what is true of a real Consul is true of our registry."""

from typing import Any, cast

import pytest
from toska_tests.discovery_rig import ConsulPort
from toska_tests.waiting import wait_until


async def register(port: ConsulPort, **body: Any) -> None:
    answer = await port.put("agent/service/register", body)
    assert (answer.status, answer.content) == (200, b"")


async def entries(port: ConsulPort, name: str, query: str = "") -> list[dict[str, Any]]:
    return await port.read(f"health/service/{name}{query}")


async def listed(port: ConsulPort, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the catalog has so many instances of a service: a real agent tells it a moment later."""
    found: list[list[dict[str, Any]]] = [[]]

    async def has_them() -> bool:
        found[0] = await entries(port, name)
        return len(found[0]) == count

    await wait_until(has_them, what=f"{count} of {name}")
    return found[0]


async def status_is(port: ConsulPort, name: str, status: str) -> dict[str, Any]:
    """Wait until a service's one check has a verdict, and return the check."""
    found: list[dict[str, Any]] = []

    async def has_it() -> bool:
        found[:] = await port.read(f"health/checks/{name}")
        return [check["Status"] for check in found] == [status]

    await wait_until(has_it, what=f"{name} is {status}: {found}")
    return found[0]


def without_indexes(value: Any) -> Any:
    """A document without what no two registries agree on: indexes, and the name and id of the node."""
    if isinstance(value, list):
        return [without_indexes(part) for part in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    body = cast("dict[str, Any]", value)
    own = {"CreateIndex", "ModifyIndex"}
    if "Datacenter" in body:
        own.add("ID")
    if isinstance(body.get("Node"), str):
        own.add("Node")
    return {key: without_indexes(part) for key, part in body.items() if key not in own}


NODE = {
    "Address": "127.0.0.1",
    "Datacenter": "dc1",
    "TaggedAddresses": dict.fromkeys(("lan", "lan_ipv4", "wan", "wan_ipv4"), "127.0.0.1"),
}
SERF: dict[str, Any] = {
    "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing", "Notes": "",
    "Output": "Agent alive and reachable", "ServiceID": "", "ServiceName": "", "ServiceTags": [], "Type": "",
    "Definition": {},
}  # fmt: skip


async def test_an_instance_is_listed_with_exactly_these_fields(port: ConsulPort, name: str) -> None:
    await register(
        port,
        ID=f"{name}-1",
        Name=name,
        Address="127.0.0.2",
        Port=9001,
        Tags=["v1", "blue"],
        Meta={"zone": "<a>"},
        Weights={"Passing": 3, "Warning": 2},
        Check={"TTL": "30s", "Notes": "renewed"},
    )
    (entry,) = await listed(port, name)
    tagged = {tag: {"Address": "127.0.0.2", "Port": 9001} for tag in ("lan_ipv4", "wan_ipv4")}
    check: dict[str, Any] = {
        "CheckID": f"service:{name}-1", "Name": f"Service '{name}' check", "Status": "critical", "Notes": "renewed",
        "Output": "", "ServiceID": f"{name}-1", "ServiceName": name, "ServiceTags": ["v1", "blue"], "Type": "ttl",
        "Definition": {},
    }  # fmt: skip
    service: dict[str, Any] = {
        "ID": f"{name}-1", "Service": name, "Tags": ["v1", "blue"], "Address": "127.0.0.2", "TaggedAddresses": tagged,
        "Meta": {"zone": "<a>"}, "Port": 9001, "Weights": {"Passing": 3, "Warning": 2}, "EnableTagOverride": False,
        "Proxy": {"MeshGateway": {}, "Expose": {}}, "Connect": {},
    }  # fmt: skip
    assert without_indexes(entry) == {
        "Node": {**NODE, "Meta": {"consul-network-segment": ""}},
        "Service": service,
        "Checks": [SERF, check],
    }
    assert without_indexes(await port.read(f"health/checks/{name}")) == [check]
    (item,) = await port.read(f"catalog/service/{name}")
    assert without_indexes(item) == {
        **NODE, "NodeMeta": {"consul-network-segment": ""}, "ServiceKind": "", "ServiceID": f"{name}-1",
        "ServiceName": name, "ServiceTags": ["v1", "blue"], "ServiceAddress": "127.0.0.2",
        "ServiceTaggedAddresses": tagged, "ServiceWeights": {"Passing": 3, "Warning": 2},
        "ServiceMeta": {"zone": "<a>"}, "ServicePort": 9001, "ServiceEnableTagOverride": False,
        "ServiceProxy": {"MeshGateway": {}, "Expose": {}}, "ServiceConnect": {},
    }  # fmt: skip
    of_agent = {
        "ID": f"{name}-1", "Service": name, "Tags": ["v1", "blue"], "Meta": {"zone": "<a>"}, "Port": 9001,
        "Address": "127.0.0.2", "TaggedAddresses": tagged, "Weights": {"Passing": 3, "Warning": 2},
        "EnableTagOverride": False,
    }  # fmt: skip
    assert (await port.read("agent/services"))[f"{name}-1"] == of_agent
    one = await port.get(f"agent/service/{name}-1")
    assert {**of_agent, "ContentHash": one.headers["x-consul-contenthash"]} == await port.read(
        f"agent/service/{name}-1"
    )
    of_checks = (await port.read("agent/checks"))[f"service:{name}-1"]
    assert (of_checks["CreateIndex"], of_checks["ModifyIndex"]) == (0, 0)
    assert without_indexes(of_checks) == check


async def test_the_fields_of_an_answer_come_in_consuls_order(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Port=9001, Check={"TTL": "30s"})
    (entry,) = await listed(port, name)
    assert [*entry] == ["Node", "Service", "Checks"]
    assert [*entry["Node"]] == [
        "ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex",
    ]  # fmt: skip
    assert [*entry["Checks"][1]] == [
        "Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "ServiceTags", "Type",
        "Definition", "CreateIndex", "ModifyIndex",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "tagged"),
    [
        ({}, None),
        ({"Address": "host.example"}, None),
        ({"Address": "::1"}, {tag: {"Address": "::1", "Port": 0} for tag in ("lan_ipv6", "wan_ipv6")}),
        ({"TaggedAddresses": {"lan": {"Address": "10.0.0.1", "Port": 8}}}, {"lan": {"Address": "10.0.0.1", "Port": 8}}),
        (
            {"Address": "10.0.0.2", "TaggedAddresses": {"wan": {"Address": "10.0.0.1", "Port": 8}}},
            {
                "lan_ipv4": {"Address": "10.0.0.2", "Port": 0},
                "wan": {"Address": "10.0.0.1", "Port": 8},
                "wan_ipv4": {"Address": "10.0.0.2", "Port": 0},
            },
        ),
    ],
)
async def test_tagged_addresses_are_made_as_consul_makes_them(
    port: ConsulPort, name: str, body: dict[str, Any], tagged: Any
) -> None:
    await register(port, Name=name, **body)
    assert (await port.read(f"agent/service/{name}")).get("TaggedAddresses") == tagged


async def test_a_read_of_the_catalog_carries_consuls_headers(port: ConsulPort, name: str) -> None:
    for path in ("catalog/services", f"catalog/service/{name}", f"health/service/{name}", "health/state/any"):
        answer = await port.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.index >= 1
        assert answer.headers["x-consul-knownleader"] == "true"
        assert answer.headers["x-consul-lastcontact"] == "0"
        assert answer.headers["x-consul-effective-consistency"] == "leader"
    stale = await port.get("catalog/services?stale")
    assert stale.headers["x-consul-effective-consistency"] == "stale"


async def test_a_service_that_is_not_there_is_an_empty_list(port: ConsulPort, name: str) -> None:
    for path in (f"catalog/service/{name}", f"health/service/{name}", f"health/checks/{name}"):
        answer = await port.get(path)
        assert (answer.status, answer.text.strip()) == (200, "[]")


async def test_the_list_of_services_has_the_tags_of_all_instances(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, ID=f"{name}-1", Port=1, Tags=["a", "b"])
    await register(port, Name=name, ID=f"{name}-2", Port=2, Tags=["b", "c"])
    await listed(port, name, 2)
    services = await port.read("catalog/services")
    assert sorted(services[name]) == ["a", "b", "c"]
    assert services["consul"] == []


async def test_reports_decide_who_is_passing(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s"})
    await status_is(port, name, "critical")
    for verb, status in (("pass", "passing"), ("warn", "warning"), ("fail", "critical"), ("pass", "passing")):
        answer = await port.put(f"agent/check/{verb}/service:{name}?note=because%20{verb}")
        assert (answer.status, answer.content) == (200, b"")
        check = await status_is(port, name, status)
        assert check["Output"] == f"because {verb}"
        expected = 1 if status == "passing" else 0
        assert len(await entries(port, name, "?passing")) == expected
        assert len(await entries(port, name, "?passing=true")) == expected
        assert len(await entries(port, name, "?passing=false")) == 1
        assert len(await entries(port, name)) == 1


async def test_a_report_may_come_as_a_document(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s"})
    for status in ("passing", "warning", "critical"):
        answer = await port.put(f"agent/check/update/service:{name}", {"Status": status, "Output": f"all {status}"})
        assert answer.status == 200
        assert (await status_is(port, name, status))["Output"] == f"all {status}"


async def test_a_long_output_is_cut_and_says_so(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s"})
    await port.put(f"agent/check/update/service:{name}", {"Status": "passing", "Output": "x" * 5000})
    check = await status_is(port, name, "passing")
    assert check["Output"] == "x" * 4096 + " ... (captured 4096 of 5000 bytes)"


async def test_a_check_that_is_not_renewed_turns_critical_in_consuls_words(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "300ms", "Status": "passing"})
    assert (await status_is(port, name, "critical"))["Output"] == "TTL expired"
    assert (await port.put(f"agent/check/pass/service:{name}?note=busy")).status == 200

    async def says_what_it_said() -> bool:
        (check,) = await port.read(f"health/checks/{name}")
        told = check["Status"], check["Output"]
        return told == ("critical", "TTL expired (last output before timeout follows): busy")

    await wait_until(says_what_it_said)


async def test_a_check_starts_with_the_status_it_asks_for_and_keeps_its_verdict_when_registered_again(
    port: ConsulPort, name: str
) -> None:
    await register(port, Name=name, Check={"TTL": "30s", "Status": "passing"})
    await status_is(port, name, "passing")
    await port.put(f"agent/check/fail/service:{name}")
    await status_is(port, name, "critical")
    await register(port, Name=name, Tags=["new"], Check={"TTL": "30s", "Status": "passing"})
    await wait_until(lambda: _has_tags(port, name, ["new"]))
    await status_is(port, name, "critical")


async def _has_tags(port: ConsulPort, name: str, tags: list[str]) -> bool:
    return [entry["Service"]["Tags"] for entry in await entries(port, name)] == [tags]


async def test_several_checks_are_numbered_and_an_instance_is_as_well_as_the_worst(port: ConsulPort, name: str) -> None:
    checks = [{"TTL": "30s", "Status": "passing"}, {"TTL": "30s", "Name": "disk", "Status": "warning"}]
    await register(port, Name=name, Check={}, Checks=checks)
    (entry,) = await listed(port, name)
    found = [(check["CheckID"], check["Name"], check["Status"]) for check in entry["Checks"][1:]]
    assert found == [
        (f"service:{name}:1", f"Service '{name}' check", "passing"),
        (f"service:{name}:2", "disk", "warning"),
    ]
    assert await entries(port, name, "?passing") == []
    await port.put(f"agent/check/pass/service:{name}:2")
    await wait_until(lambda: _passes(port, name))


async def _passes(port: ConsulPort, name: str) -> bool:
    return len(await entries(port, name, "?passing")) == 1


async def test_checks_may_have_ids_of_their_own(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"CheckID": f"mine-{name}", "TTL": "30s", "Name": "mine"})
    assert (await status_is(port, name, "critical"))["CheckID"] == f"mine-{name}"
    await port.put(f"agent/check/pass/mine-{name}")
    await status_is(port, name, "passing")


async def test_checks_stay_at_a_new_registration_unless_they_are_to_be_replaced(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s"})
    await status_is(port, name, "critical")
    await register(port, Name=name)
    assert len(await port.read(f"health/checks/{name}")) == 1
    answer = await port.put("agent/service/register?replace-existing-checks=true", {"Name": name})
    assert answer.status == 200

    async def has_none() -> bool:
        return await port.read(f"health/checks/{name}") == []

    await wait_until(has_none)


async def test_an_instance_without_checks_is_passing(port: ConsulPort, name: str) -> None:
    await register(port, Name=name)
    (entry,) = await listed(port, name)
    assert [check["CheckID"] for check in entry["Checks"]] == ["serfHealth"]
    assert len(await entries(port, name, "?passing")) == 1


async def test_tags_select_by_all_of_them_in_any_case(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, ID=f"{name}-1", Port=1, Tags=["Blue", "v1"])
    await register(port, Name=name, ID=f"{name}-2", Port=2, Tags=["blue", "v2"])
    await listed(port, name, 2)
    for query, count in (("?tag=blue", 2), ("?tag=BLUE&tag=v1", 1), ("?tag=v1&tag=v2", 0), ("?tag=none", 0)):
        assert len(await entries(port, name, query)) == count
        assert len(await port.read(f"catalog/service/{name}{query}")) == count


async def test_a_deregistered_instance_is_gone_and_a_second_time_is_fine(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s"})
    await listed(port, name)
    for _ in range(2):
        answer = await port.put(f"agent/service/deregister/{name}")
        assert (answer.status, answer.content) == (200, b"")
    await listed(port, name, 0)
    assert name not in await port.read("catalog/services")
    answer = await port.get(f"agent/service/{name}")
    assert (answer.status, answer.text) == (404, f"unknown service ID: {name}")


async def test_an_id_registered_under_another_name_moves_there(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, ID=f"{name}-id")
    await listed(port, name)
    await register(port, Name=f"{name}-new", ID=f"{name}-id")
    await listed(port, f"{name}-new")
    await listed(port, name, 0)


async def test_renewals_do_not_touch_the_index(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s", "Status": "passing"})
    await listed(port, name)
    before = (await port.get(f"health/service/{name}")).index
    for number in range(5):
        await port.put(f"agent/check/pass/service:{name}?note={number}")
    assert (await port.get(f"health/service/{name}")).index == before


async def test_the_agent_shows_the_output_of_the_last_renewal(port: ConsulPort, name: str) -> None:
    await register(port, Name=name, Check={"TTL": "30s", "Status": "passing"})
    await port.put(f"agent/check/pass/service:{name}?note=latest")
    assert (await port.read("agent/checks"))[f"service:{name}"]["Output"] == "latest"


async def test_the_same_registration_again_leaves_the_index_alone(port: ConsulPort, name: str) -> None:
    body = {"Name": name, "Port": 9, "Tags": ["a"], "Meta": {"k": "v"}}
    await register(port, **body)
    await listed(port, name)
    before = (await port.get(f"health/service/{name}")).index
    await register(port, **body)
    assert (await port.get(f"health/service/{name}")).index == before


async def test_every_change_of_a_service_raises_its_index(port: ConsulPort, name: str) -> None:
    indexes = [(await port.get(f"health/service/{name}")).index]

    async def has_risen() -> bool:
        return (await port.get(f"health/service/{name}")).index > indexes[-1]

    for method, path, body in (
        ("PUT", "agent/service/register", {"Name": name, "Check": {"TTL": "30s"}}),
        ("PUT", f"agent/check/pass/service:{name}", None),
        ("PUT", "agent/service/register", {"Name": name, "Tags": ["x"], "Check": {"TTL": "30s"}}),
        ("PUT", f"agent/check/warn/service:{name}", None),
        ("PUT", f"agent/service/deregister/{name}", None),
    ):
        assert (await port.ask(method, path, body)).status == 200
        await wait_until(has_risen, what=f"the index rises after {path}")
        indexes.append((await port.get(f"health/service/{name}")).index)


@pytest.mark.parametrize("state", ["any", "passing", "warning", "critical"])
async def test_checks_are_found_by_state(port: ConsulPort, name: str, state: str) -> None:
    checks = [{"CheckID": f"{name}-{status}", "TTL": "30s", "Status": status} for status in ("passing", "warning")]
    await register(port, Name=name, Checks=checks)
    await listed(port, name)
    found = {check["CheckID"] for check in await port.read(f"health/state/{state}")}
    assert ("serfHealth" in found) == (state in {"any", "passing"})
    assert {item for item in found if item.startswith(name)} == {
        f"{name}-{status}" for status in ("passing", "warning") if state in {"any", status}
    }


async def test_a_state_that_there_is_not_has_no_checks(port: ConsulPort) -> None:
    answer = await port.get("health/state/bogus")
    assert (answer.status, answer.text.strip()) == (200, "[]")


async def test_the_one_node_is_listed(port: ConsulPort) -> None:
    (node,) = await port.read("catalog/nodes")
    assert without_indexes(node) == {**NODE, "Meta": {"consul-network-segment": ""}}
    assert await port.read("catalog/nodes?node-meta=consul-network-segment:") == [node]
    assert await port.read("catalog/nodes?node-meta=a:b") == []
    assert await port.read("catalog/services?node-meta=a:b") == {}
    assert await port.read("catalog/datacenters") == ["dc1"]


async def test_consul_is_a_service_of_its_own_catalog(port: ConsulPort) -> None:
    (entry,) = await entries(port, "consul", "?passing")
    assert (entry["Service"]["ID"], entry["Service"]["Tags"]) == ("consul", [])
    assert [check["CheckID"] for check in entry["Checks"]] == ["serfHealth"]
    (item,) = await port.read("catalog/service/consul")
    assert item["ServiceName"] == "consul"
    assert "consul" not in await port.read("agent/services")


async def test_the_agent_says_who_it_is(port: ConsulPort) -> None:
    about = await port.read("agent/self")
    (node,) = await port.read("catalog/nodes")
    assert set(about) == {"Config", "DebugConfig", "Coord", "Member", "Stats", "Meta"}
    assert (about["Config"]["NodeName"], about["Config"]["NodeID"]) == (node["Node"], node["ID"])
    assert (about["Config"]["Datacenter"], about["Config"]["Server"]) == ("dc1", True)
    assert about["Config"]["Version"] == "1.8.7"
    (member,) = await port.read("agent/members")
    assert member == about["Member"]
    assert (member["Name"], member["Status"], member["Tags"]["role"]) == (node["Node"], 1, "consul")
    leader = await port.read("status/leader")
    assert leader.startswith("127.0.0.1:")
    assert await port.read("status/peers") == [leader]


async def test_answers_can_be_made_for_a_persons_eyes(port: ConsulPort) -> None:
    answer = await port.get("catalog/datacenters?pretty")
    assert answer.text == '[\n    "dc1"\n]\n'
