"""Consul's API for nodes: the registry's own, and those that are written into the catalog."""

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, cast

import anyio
import pytest
from toska_tests.consul_nodes import erase, own_name, write
from toska_tests.discovery_rig import Answer, ConsulPort
from toska_tests.waiting import wait_until


@pytest.fixture
async def node(port: ConsulPort) -> AsyncGenerator[str]:
    """A node that no other test has, gone afterwards."""
    name = f"n-{uuid.uuid4().hex[:12]}"
    yield name
    await port.put("catalog/deregister", {"Node": name})


def without_indexes(value: Any) -> Any:
    if isinstance(value, list):
        return [without_indexes(part) for part in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    body = cast("dict[str, Any]", value)
    return {key: without_indexes(part) for key, part in body.items() if key not in {"CreateIndex", "ModifyIndex"}}


async def test_a_node_that_is_written_is_shown_with_exactly_these_fields(
    port: ConsulPort, node: str, name: str
) -> None:
    node_id = str(uuid.uuid4())
    await write(
        port,
        Node=node,
        ID=node_id,
        TaggedAddresses={"wan": "10.9.9.9"},
        NodeMeta={"zone": "a"},
        Service={"ID": f"{name}-1", "Service": name, "Port": 80, "Tags": ["x"], "Address": "10.0.0.7"},
        Check={"CheckID": f"service:{name}", "Name": "up", "Status": "passing", "ServiceID": f"{name}-1"},
    )
    head = {
        "ID": node_id, "Node": node, "Address": "10.0.0.1", "Datacenter": "dc1",
        "TaggedAddresses": {"wan": "10.9.9.9"},
    }  # fmt: skip
    shown = {**head, "Meta": {"zone": "a"}}
    service: dict[str, Any] = {
        "ID": f"{name}-1", "Service": name, "Tags": ["x"], "Address": "10.0.0.7", "Meta": None, "Port": 80,
        "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": False,
        "Proxy": {"MeshGateway": {}, "Expose": {}}, "Connect": {},
    }  # fmt: skip
    check: dict[str, Any] = {
        "Node": node, "CheckID": f"service:{name}", "Name": "up", "Status": "passing", "Notes": "", "Output": "",
        "ServiceID": f"{name}-1", "ServiceName": name, "ServiceTags": ["x"], "Type": "", "Definition": {},
    }  # fmt: skip
    read = port.read
    assert [item for item in without_indexes(await read("catalog/nodes")) if item["Node"] == node] == [shown]
    assert without_indexes(await read(f"catalog/node/{node}")) == {"Node": shown, "Services": {f"{name}-1": service}}
    assert without_indexes(await read(f"catalog/node/{node.upper()}"))["Node"] == shown
    listed = {"Node": shown, "Services": [service]}
    assert without_indexes(await read(f"catalog/node-services/{node}")) == listed
    entry = {"Node": shown, "Service": service, "Checks": [check]}
    assert without_indexes(await read(f"health/service/{name}?passing")) == [entry]
    assert without_indexes(await read(f"health/checks/{name}")) == [check]
    assert without_indexes(await read(f"health/node/{node}")) == [check]
    (item,) = without_indexes(await read(f"catalog/service/{name}"))
    assert item == {
        **head, "NodeMeta": {"zone": "a"}, "ServiceKind": "", "ServiceID": f"{name}-1", "ServiceName": name,
        "ServiceTags": ["x"], "ServiceAddress": "10.0.0.7", "ServiceWeights": {"Passing": 1, "Warning": 1},
        "ServiceMeta": {}, "ServicePort": 80, "ServiceEnableTagOverride": False,
        "ServiceProxy": {"MeshGateway": {}, "Expose": {}}, "ServiceConnect": {},
    }  # fmt: skip
    assert (await read("catalog/services"))[name] == ["x"]
    assert f"{name}-1" not in await read("agent/services")
    assert f"service:{name}" not in await read("agent/checks")


async def test_what_a_node_is_written_without_is_null(port: ConsulPort, node: str) -> None:
    await write(port, Node=node)
    (shown,) = [item for item in await port.read("catalog/nodes") if item["Node"] == node]
    assert (shown["ID"], shown["TaggedAddresses"], shown["Meta"]) == ("", None, None)
    assert (await port.read(f"catalog/node/{node}"))["Services"] == {}
    assert await port.read(f"health/node/{node}") == []


async def test_a_node_that_is_not_there_has_nothing(port: ConsulPort) -> None:
    for path, empty in (
        ("catalog/node/none", "null"),
        ("catalog/node-services/none", '{"Node":null,"Services":null}'),
        ("health/node/none", "[]"),
    ):
        answer = await port.get(path)
        assert (answer.status, "".join(answer.text.split())) == (200, empty)
        assert answer.index >= 1
        assert answer.headers["x-consul-effective-consistency"] == "leader"


async def test_the_registrys_own_node_has_its_health_and_the_service_consul(port: ConsulPort) -> None:
    own = await own_name(port)
    checks = await port.read(f"health/node/{own}")
    assert [check["Status"] for check in checks if check["CheckID"] == "serfHealth"] == ["passing"]
    found = await port.read(f"catalog/node/{own}")
    assert found["Node"]["Node"] == own
    assert found["Services"]["consul"]["Service"] == "consul"
    (entry,) = await port.read("health/service/consul?passing")
    assert entry["Node"] == found["Node"]
    assert "serfHealth" in {check["CheckID"] for check in entry["Checks"]}
    (item,) = await port.read("catalog/service/consul")
    assert (item["Node"], item["ServiceID"]) == (own, "consul")
    assert item["ServiceMeta"] == {
        "non_voter": "false", "raft_version": "3", "serf_protocol_current": "2", "serf_protocol_max": "5",
        "serf_protocol_min": "1", "version": "1.8.7",
    }  # fmt: skip
    (member,) = await port.read("agent/members?wan=1")
    assert (member["Name"], (await port.read("agent/members"))[0]["Name"]) == (f"{own}.dc1", own)


async def test_checks_are_written_with_how_they_are_probed(port: ConsulPort, node: str) -> None:
    definition = {
        "HTTP": "http://a", "Interval": "30s", "Timeout": "1500ms", "DeregisterCriticalServiceAfter": "90m",
        "Header": {"a": ["b"]}, "Method": "POST", "Body": "b", "TLSSkipVerify": True, "TCP": "",
    }  # fmt: skip
    checks = [
        {"CheckID": "h", "Name": "http", "Status": "passing", "Definition": definition, "Output": "200", "Notes": "n"},
        {"Name": "t", "Status": "warning", "Definition": {"TCP": "a:1", "Interval": "5s"}},
        {"Name": "u", "Definition": {"HTTP": "http://a"}},
    ]
    await write(port, Node=node, Checks=checks)
    http, tcp, bare = await port.read(f"health/node/{node}")
    assert (http["CheckID"], http["Type"], http["Output"], http["Notes"]) == ("h", "http", "200", "n")
    assert http["Definition"] == {
        "Interval": "30s", "Timeout": "1.5s", "DeregisterCriticalServiceAfter": "1h30m0s", "HTTP": "http://a",
        "TLSSkipVerify": True, "Header": {"a": ["b"]}, "Method": "POST", "Body": "b",
    }  # fmt: skip
    assert (tcp["CheckID"], tcp["Type"], tcp["Definition"]) == ("t", "tcp", {"Interval": "5s", "TCP": "a:1"})
    assert (bare["CheckID"], bare["Status"], bare["Type"]) == ("u", "critical", "")
    assert bare["Definition"] == {"HTTP": "http://a"}


async def test_checks_of_a_node_and_of_an_instance_decide_together_whether_it_passes(
    port: ConsulPort, node: str, name: str
) -> None:
    service = {"Service": name, "Port": 80}
    await write(port, Node=node, Service=service, Check={"Name": "of-node", "Status": "passing"})
    await write(port, Node=node, Check={"Name": "a-service", "ServiceID": name, "Status": "passing"})
    (entry,) = await port.read(f"health/service/{name}?passing")
    assert [check["CheckID"] for check in entry["Checks"]] == ["of-node", "a-service"]
    await write(port, Node=node, Check={"Name": "of-node", "Status": "critical", "Output": "disk is full"})
    assert await port.read(f"health/service/{name}?passing") == []
    (entry,) = await port.read(f"health/service/{name}")
    assert [check["Output"] for check in entry["Checks"]] == ["disk is full", ""]
    await write(port, Node=node, Check={"Name": "of-node", "Status": "passing"})
    await write(port, Node=node, Check={"Name": "a-service", "ServiceID": name, "Status": "warning"})
    assert await port.read(f"health/service/{name}?passing") == []
    critical = [check["CheckID"] for check in await port.read("health/state/warning") if check["Node"] == node]
    assert critical == ["a-service"]


async def test_a_service_is_written_onto_several_nodes_under_one_id(port: ConsulPort, node: str, name: str) -> None:
    for number in (2, 1):
        await write(port, Node=f"{node}-{number}", Service={"Service": name, "Port": 80, "Tags": [str(number)]})
    found = await port.read(f"health/service/{name}")
    assert [entry["Node"]["Node"] for entry in found] == [f"{node}-1", f"{node}-2"]
    await erase(port, Node=f"{node}-1", ServiceID=name)
    (entry,) = await port.read(f"catalog/service/{name}")
    assert (entry["Node"], entry["ServiceTags"]) == (f"{node}-2", ["2"])
    for number in (1, 2):
        await erase(port, Node=f"{node}-{number}")
    assert await port.read(f"catalog/service/{name}") == []


async def test_a_node_is_kept_as_it_is_on_request(port: ConsulPort, node: str, name: str) -> None:
    await write(port, Node=node, NodeMeta={"a": "1"})
    body = {"Node": node, "SkipNodeUpdate": True, "Address": "10.0.0.9", "Service": {"Service": name}}
    await write(port, **body)
    assert (await port.read(f"catalog/node/{node}"))["Node"]["Address"] == "10.0.0.1"
    await write(port, Node=node, Address="10.0.0.9")
    found = await port.read(f"catalog/node/{node}")
    assert (found["Node"]["Address"], found["Node"]["Meta"]) == ("10.0.0.9", None)
    assert [*found["Services"]] == [name]
    (entry,) = await port.read(f"health/service/{name}")
    assert entry["Node"]["Address"] == "10.0.0.9"


async def test_a_node_that_comes_back_under_another_name_is_the_same_machine(
    port: ConsulPort, node: str, name: str
) -> None:
    node_id = str(uuid.uuid4())
    await write(port, Node=f"{node}-old", ID=node_id, Service={"Service": name})
    await write(port, Node=node, ID=node_id)
    assert await port.read(f"catalog/node/{node}-old") is None
    assert (await port.read(f"catalog/node/{node}"))["Node"]["ID"] == node_id
    assert await port.read(f"catalog/service/{name}") == []


async def test_what_is_written_is_taken_off_bit_by_bit(port: ConsulPort, node: str, name: str) -> None:
    checks = [{"Name": "one", "ServiceID": name, "Status": "passing"}, {"Name": "two", "Status": "passing"}]
    await write(port, Node=node, Service={"Service": name}, Checks=checks)

    async def left() -> tuple[list[str], list[str]]:
        found = await port.read(f"catalog/node/{node}")
        return [*found["Services"]], [check["CheckID"] for check in await port.read(f"health/node/{node}")]

    for unknown in ({"ServiceID": "none"}, {"CheckID": "none"}):
        await erase(port, Node=node, **unknown)
    assert await left() == ([name], ["one", "two"])
    await erase(port, Node=node, CheckID="two")
    assert await left() == ([name], ["one"])
    await erase(port, Node=node, ServiceID=name)
    assert await left() == ([], [])
    for _ in range(2):
        await erase(port, Node=node)
    assert await port.read(f"catalog/node/{node}") is None
    assert name not in await port.read("catalog/services")


async def test_lists_are_narrowed_by_what_is_known_of_nodes(port: ConsulPort, node: str, name: str) -> None:
    for number, zone in ((1, "a"), (2, "b")):
        await write(
            port,
            Node=f"{node}-{number}",
            NodeMeta={"zone": zone, "of": node},
            Service={"Service": name, "Tags": [zone, "all"]},
            Check={"Name": f"up-{node}", "ServiceID": name, "Status": "critical"},
        )

    async def counts(query: str) -> list[int]:
        paths = ("catalog/nodes", f"catalog/service/{name}", f"health/service/{name}", f"health/checks/{name}")
        return [len(await port.read(f"{path}?{query}")) for path in paths]

    both, one = f"node-meta=of:{node}", f"node-meta=of:{node}&node-meta=zone:a"
    assert await counts(both) == [2, 2, 2, 2]
    assert await counts(one) == [1, 1, 1, 1]
    assert await counts(f"node-meta=of:{node}&node-meta=zone:c") == [0, 0, 0, 0]
    assert await counts(f"node-meta=of:{node}x") == [0, 0, 0, 0]
    assert {"consul", name} & {*await port.read(f"catalog/services?{one}")} == {name}
    assert sorted((await port.read(f"catalog/services?{one}"))[name]) == ["a", "all"]
    assert await port.read("catalog/services?node-meta=none:1") == {}
    states = await port.read(f"health/state/critical?{one}")
    assert [check["Node"] for check in states] == [f"{node}-1"]
    assert len(await port.read(f"health/service/{name}?tag=all&tag=a&{both}")) == 1
    for number in (1, 2):
        await erase(port, Node=f"{node}-{number}")


async def test_those_on_the_registrys_own_node_come_first_where_near_it_is_asked_for(
    port: ConsulPort, name: str
) -> None:
    own = await own_name(port)
    nodes = [f"0-{name}", f"zzzz-{name}"]  # before and after any name of a machine
    for node in nodes:
        check = {"Name": "up", "ServiceID": name, "Status": "passing"}
        await write(port, Node=node, Service={"Service": name}, Check=check)
    await port.put("agent/service/register", {"Name": name, "Check": {"TTL": "1h", "Status": "passing"}})

    async def order(path: str, query: str) -> list[str]:
        found = await port.read(f"{path}{query}")
        names = [item["Node"]["Node"] if isinstance(item["Node"], dict) else item["Node"] for item in found]
        return [item for item in names if item in {own, *nodes}]

    # A real agent tells where it is some seconds after it started; ours always knows.
    coordinate = {"Vec": [0.0] * 8, "Error": 1.5, "Adjustment": 0.0, "Height": 0.00001}
    await port.put("coordinate/update", {"Node": own, "Coord": coordinate})

    async def all_there() -> bool:
        return (await order(f"health/checks/{name}", "?near=_agent"))[:1] == [own]

    await wait_until(all_there, what="the catalog has all three, and knows where its own node is")
    for path in ("catalog/nodes", f"catalog/service/{name}", f"health/service/{name}", f"health/checks/{name}"):
        assert await order(path, "") == [nodes[0], own, nodes[1]]
        assert await order(path, "?near=" + nodes[1]) == [nodes[0], own, nodes[1]]
        for near in ("_agent", own):
            assert await order(path, f"?near={near}") == [own, *nodes]
    assert (await order("health/state/any", "?near=_agent"))[0] == own
    for node in nodes:
        await erase(port, Node=node)
    await port.put(f"agent/service/deregister/{name}")


async def blocked(port: ConsulPort, path: str, change: Callable[[], Awaitable[None]]) -> Answer:
    """The answer of a query that waits for its next change, which `change` makes once it waits."""
    index = (await port.get(path)).index
    answers: list[Answer] = []
    wait_s = 60 if port.kind == "embedded" else 2  # a real one lets a change of a node go by unnoticed now and then

    async def wait() -> None:
        answers.append(await port.get(f"{path}?index={index}&wait={wait_s}s"))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await change()
    assert answers[0].index != index  # of a node that is gone, Consul's starts again
    return answers[0]


async def test_those_who_wait_for_a_node_or_for_what_is_on_it_are_woken(port: ConsulPort, node: str, name: str) -> None:
    await write(port, Node=node, Service={"Service": name}, Check={"Name": "up", "Status": "passing"})
    for number, path in enumerate(("catalog/nodes", f"catalog/node/{node}", f"health/service/{name}")):
        changed = {"Node": node, "Address": f"10.0.1.{number + 1}"}
        answer = await blocked(port, path, partial(write, port, **changed))
        assert changed["Address"] in answer.text
    for number, path in enumerate((f"health/node/{node}", "health/state/any", f"health/service/{name}")):
        check = {"Name": "up", "Status": "warning", "Output": f"slow {number}"}
        answer = await blocked(port, path, partial(write, port, Node=node, SkipNodeUpdate=True, Check=check))
        assert f"slow {number}" in answer.text
    answer = await blocked(port, f"catalog/node-services/{node}", partial(erase, port, Node=node, ServiceID=name))
    assert name not in answer.text
    answer = await blocked(port, f"catalog/node/{node}", partial(erase, port, Node=node))
    assert answer.text.strip() == "null"


async def test_the_same_written_again_takes_no_index(port: ConsulPort, node: str, name: str) -> None:
    body = {
        "Node": node, "NodeMeta": {"a": "1"}, "Service": {"Service": name, "Tags": ["a"], "Port": 1},
        "Check": {"Name": "up", "Status": "passing", "ServiceID": name, "Output": "x"},
    }  # fmt: skip
    await write(port, **body)
    before = await port.read(f"health/service/{name}")
    await write(port, **body)
    assert await port.read(f"health/service/{name}") == before


async def test_nobody_is_listed_as_capable_of_connect(port: ConsulPort, name: str) -> None:
    await port.put("agent/service/register", {"Name": name})
    for path in ("catalog/connect", "health/connect"):
        answer = await port.get(f"{path}/{name}")
        assert (answer.status, answer.text.strip()) == (200, "[]")


async def test_an_alias_follows_an_instance_on_another_node(ours: ConsulPort, name: str) -> None:
    # Consul 1.8.7 crashes once such an alias has something to tell.
    port, node = ours, f"n-{name}"
    check = {"Name": "up", "ServiceID": name, "Status": "passing"}
    await write(port, Node=node, Service={"Service": name}, Check=check)
    alias = {
        "ID": f"alias-{name}",
        "Name": "alias",
        "AliasNode": node.upper(),
        "AliasService": name,
        "ServiceID": f"a-{name}",
    }
    await port.put("agent/service/register", {"ID": f"a-{name}", "Name": f"a-{name}"})
    assert (await port.put("agent/check/register", alias)).status == 200

    async def is_as(status: str) -> bool:
        return (await port.read("agent/checks"))[f"alias-{name}"]["Status"] == status

    await wait_until(partial(is_as, "passing"), what="the alias passes")
    await write(port, Node=node, Check={**check, "Status": "warning"})
    await wait_until(partial(is_as, "warning"), what="the alias warns")
    await port.put(f"agent/service/deregister/a-{name}")
    await erase(port, Node=node)
