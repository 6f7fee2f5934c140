"""What is refused of whoever writes nodes into the catalog, by Consul and by our registry."""

from typing import Any

import pytest
from toska_tests.consul_nodes import erase, own_name, write
from toska_tests.discovery_rig import ConsulPort


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 400, "Request decode failed: EOF"),
        ({"Address": "10.0.0.1"}, 500, "Must provide node"),
        ({"Node": "x"}, 500, "Must provide address if SkipNodeUpdate is not set"),
        ({"Node": "x", "Address": "10.0.0.1", "ID": "bad"}, 500, "Bad node ID: uuid string is wrong length"),
        ({"Node": "x", "Address": "10.0.0.1", "Datacenter": "dc9"}, 500, "No path to datacenter"),
        ({"Node": "x", "Address": "10.0.0.1", "Foo": 1}, 400, 'Request decode failed: json: unknown field "Foo"'),
        (
            {"Node": "x", "Address": "10.0.0.1", "node_meta": {}},
            400,
            'Request decode failed: json: unknown field "node_meta"',
        ),
        ({"Node": "x", "Address": "10.0.0.1", "Service": {"ID": "x"}}, 500, "Must provide service name with ID"),
        (
            {"Node": "x", "Address": "10.0.0.1", "Check": {"Name": "y", "ServiceID": "none"}},
            500,
            'failed inserting check: Missing service registration on node "x"',
        ),
        (
            {"Node": "x", "Address": "10.0.0.1", "Check": {"Name": "y", "Node": "z"}},
            500,
            'check node "z" does not match node "x"',
        ),
        (
            {"Node": "x", "Address": "10.0.0.1", "Check": {"Name": "y", "Definition": {"Interval": "bad"}}},
            400,
            'Request decode failed: time: invalid duration "bad"',
        ),
    ],
)
async def test_an_entry_that_consul_refuses(port: ConsulPort, body: Any, status: int, text: str) -> None:
    answer = await port.put("catalog/register", body)
    assert (answer.status, answer.text) == (status, text)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("PUT", "catalog/deregister", b"", 400, "Request decode failed: EOF"),
        ("PUT", "catalog/deregister", {}, 500, "Must provide node"),
        ("PUT", "catalog/deregister", {"Node": "x", "Datacenter": "dc9"}, 500, "No path to datacenter"),
        ("PUT", "catalog/deregister", {"Node": "x", "F": 1}, 400, 'Request decode failed: json: unknown field "F"'),
        ("GET", "catalog/node/", None, 400, "Missing node name"),
        ("GET", "catalog/node-services/", None, 400, "Missing node name"),
        ("GET", "health/node/", None, 400, "Missing node name"),
        ("GET", "catalog/connect/", None, 400, "Missing service name"),
        ("GET", "health/connect/", None, 400, "Missing service name"),
        ("GET", "catalog/node/x?dc=dc9", None, 500, "No path to datacenter"),
        ("GET", "health/node/x?dc=dc9", None, 500, "No path to datacenter"),
        ("GET", "catalog/nodes?index=bad", None, 400, "Invalid index"),
    ],
)
async def test_a_request_about_nodes_that_consul_refuses(
    port: ConsulPort, method: str, path: str, body: Any, status: int, text: str
) -> None:
    answer = await port.ask(method, path, body)
    assert (answer.status, answer.text) == (status, text)


# From here on: where our registry is stricter than Consul.


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Node": "x", "Address": "not an address"}, "Invalid node address: 'not an address' is not a host name"),
        ({"Node": "x", "Address": "169.254.169.254"}, "Invalid node address"),
        ({"Node": "x\n", "Address": "10.0.0.1"}, "Invalid node name"),
        ({"Node": "x", "Address": "10.0.0.1", "Check": {"Name": "y", "Status": "bad"}}, "Invalid check status: 'bad'"),
        ({"Node": "x", "Address": "10.0.0.1", "Check": {"Name": "y", "Type": "foo"}}, "Invalid check type: 'foo'"),
        (
            {"Node": "x", "Address": "10.0.0.1", "Service": {"Service": "y", "Address": "0.0.0.0"}},
            "Invalid service address",
        ),
        ({"Node": "x", "Address": "10.0.0.1", "Service": {"Service": "consul"}}, "Invalid service: consul"),
        (
            {"Node": "x", "Address": "10.0.0.1", "Service": {"Service": "y", "Kind": "connect-proxy"}},
            "Invalid service: Kind is not supported",
        ),
        ({"Node": "x", "Address": "10.0.0.1", "NodeMeta": {"": "1"}}, "Invalid Node Meta"),
        ({"Node": "x", "Address": "10.0.0.1", "Checks": [{"Name": str(n)} for n in range(17)]}, "Invalid check"),
    ],
)
async def test_an_entry_that_cannot_be_honoured_is_refused(ours: ConsulPort, body: Any, text: str) -> None:
    answer = await ours.put("catalog/register", body)
    assert answer.status == 400
    assert answer.text.startswith(text)
    assert await ours.read("catalog/node/x") is None


async def test_the_registrys_own_node_is_written_to_by_its_agent_alone(ours: ConsulPort, name: str) -> None:
    own = await own_name(ours)
    answer = await ours.put("catalog/register", {"Node": own, "Address": "127.0.0.1", "Service": {"Service": name}})
    assert answer.status == 400
    assert answer.text.endswith("register services and checks on it with the agent")
    await write(ours, Node=own, Address="127.0.0.1")
    await ours.put("agent/service/register", {"Name": name})
    await erase(ours, Node=own, ServiceID=name)
    assert name not in await ours.read("agent/services")
    answer = await ours.put("catalog/deregister", {"Node": own})
    assert answer.status == 400
    node_id = (await ours.read("agent/self"))["Config"]["NodeID"]
    answer = await ours.put("catalog/register", {"Node": "other", "Address": "10.0.0.1", "ID": node_id})
    assert answer.status == 500
