"""A cluster of one, and what there is not: what Consul with ACLs disabled answers, our registry answers."""

from typing import Any

import pytest
from toska_tests.discovery_rig import ConsulPort
from toska_tests.waiting import wait_until

UNKNOWN = "11111111-1111-1111-1111-111111111111"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "acl/bootstrap"),
        ("GET", "acl/replication"),
        ("POST", "acl/login"),
        ("POST", "acl/logout"),
        ("PUT", "acl/token"),
        ("GET", "acl/token/self"),
        ("GET", f"acl/token/{UNKNOWN}"),
        ("PUT", f"acl/token/{UNKNOWN}"),
        ("PUT", f"acl/token/{UNKNOWN}/clone"),
        ("DELETE", f"acl/token/{UNKNOWN}"),
        ("GET", "acl/tokens"),
        ("PUT", "acl/policy"),
        ("GET", f"acl/policy/{UNKNOWN}"),
        ("GET", "acl/policy/name/x"),
        ("DELETE", f"acl/policy/{UNKNOWN}"),
        ("GET", "acl/policies"),
        ("PUT", "acl/role"),
        ("GET", "acl/role/name/x"),
        ("GET", "acl/roles"),
        ("PUT", "acl/auth-method"),
        ("GET", "acl/auth-method/x"),
        ("GET", "acl/auth-methods"),
        ("PUT", "acl/binding-rule"),
        ("GET", f"acl/binding-rule/{UNKNOWN}"),
        ("GET", "acl/binding-rules"),
        ("POST", "acl/rules/translate"),
        ("GET", "acl/rules/translate/x"),
        ("PUT", "acl/create"),
        ("PUT", "acl/update"),
        ("PUT", "acl/destroy/x"),
        ("GET", "acl/info/x"),
        ("PUT", "acl/clone/x"),
        ("GET", "acl/list"),
        ("PUT", "agent/token/default"),
        ("PUT", "agent/token/nonsense"),
    ],
)
async def test_acls_are_disabled(port: ConsulPort, method: str, path: str) -> None:
    answer = await port.ask(method, path, None if method in {"GET", "DELETE"} else {})
    assert (answer.status, answer.text) == (401, "ACL support disabled")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "acl", 404, ""),
        ("GET", "acl/nonsense", 404, ""),
        ("GET", "acl/token", 405, "method GET not allowed"),
        ("GET", "acl/bootstrap", 405, "method GET not allowed"),
        ("DELETE", "acl/tokens", 405, "method DELETE not allowed"),
        ("GET", "agent/token/default", 405, "method GET not allowed"),
        ("GET", "operator/raft", 404, ""),
        ("GET", "operator/raft/configuration/", 404, ""),
        ("GET", "operator/raft/configuration?dc=elsewhere", 500, "No path to datacenter"),
        (
            "DELETE",
            "operator/raft/peer",
            400,
            "Bad request: Must specify either ?id with the server's ID or ?address with IP:port of peer to remove",
        ),
        ("DELETE", "operator/raft/peer?id=x&address=y", 400, "Bad request: Must specify only one of ?id or ?address"),
        ("DELETE", "operator/raft/peer?id=x", 500, 'id "x" was not found in the Raft configuration'),
        (
            "DELETE",
            "operator/raft/peer?address=192.0.2.1:1",
            500,
            'address "192.0.2.1:1" was not found in the Raft configuration',
        ),
        ("GET", "operator/autopilot/state", 404, ""),
        ("GET", "operator/area", 404, ""),
        ("GET", "coordinate/node/none", 404, ""),
        ("GET", "coordinate/node/", 404, ""),
        ("GET", "coordinate/nodes?dc=elsewhere", 500, "No path to datacenter"),
        ("GET", "config/nonsense", 500, "invalid config entry kind: nonsense"),
        ("GET", "config/nonsense/x", 500, "invalid config entry kind: nonsense"),
        ("GET", "config/service-defaults/web", 404, 'Config entry not found for "service-defaults" / "web"'),
        ("GET", "config/service-defaults/a/b", 404, 'Config entry not found for "service-defaults" / "a/b"'),
        ("DELETE", "config/service-defaults", 404, "Must provide both a kind and name to delete"),
        ("DELETE", "config/nonsense/x", 400, "invalid config entry kind: nonsense"),
        ("GET", "config", 405, "method GET not allowed"),
        ("GET", "connect/nonsense", 404, ""),
    ],
)
async def test_a_request_that_consul_refuses(port: ConsulPort, method: str, path: str, status: int, text: str) -> None:
    answer = await port.ask(method, path)
    assert (answer.status, answer.text) == (status, text)


async def test_the_one_server_leads(port: ConsulPort) -> None:
    configuration = await port.read("operator/raft/configuration")
    leader = await port.read("status/leader")
    about = (await port.read("agent/self"))["Config"]
    assert configuration == {
        "Servers": [
            {
                "ID": about["NodeID"],
                "Node": about["NodeName"],
                "Address": leader,
                "Leader": True,
                "ProtocolVersion": "3",
                "Voter": True,
            }
        ],
        "Index": 0,
    }


async def test_the_one_server_is_well(port: ConsulPort) -> None:

    async def is_known() -> bool:
        return bool((await port.read("operator/autopilot/health"))["Servers"])

    await wait_until(is_known, what="the server has told how it is")
    health = await port.read("operator/autopilot/health")
    (server,) = health.pop("Servers")
    assert health == {"Healthy": True, "FailureTolerance": 0}
    about = (await port.read("agent/self"))["Config"]
    for numbers in ("LastIndex", "LastTerm", "StableSince"):
        assert server.pop(numbers)
    assert server == {
        "ID": about["NodeID"],
        "Name": about["NodeName"],
        "Address": await port.read("status/leader"),
        "SerfStatus": "alive",
        "Version": "1.8.7",
        "Leader": True,
        "LastContact": "0s",
        "Healthy": True,
        "Voter": True,
    }


async def test_autopilot_has_consul_s_defaults(port: ConsulPort) -> None:
    configuration = await port.read("operator/autopilot/configuration")
    assert configuration.pop("CreateIndex") > 0
    assert configuration.pop("ModifyIndex") > 0
    assert configuration == {
        "CleanupDeadServers": True,
        "LastContactThreshold": "200ms",
        "MaxTrailingLogs": 250,
        "MinQuorum": 0,
        "ServerStabilizationTime": "10s",
        "RedundancyZoneTag": "",
        "DisableUpgradeMigration": False,
        "UpgradeVersionTag": "",
    }


async def test_the_one_node_has_coordinates(port: ConsulPort) -> None:
    node = (await port.read("agent/self"))["Config"]["NodeName"]
    (datacenter,) = await port.read("coordinate/datacenters")
    assert (datacenter["Datacenter"], datacenter["AreaID"]) == ("dc1", "wan")
    (entry,) = datacenter["Coordinates"]
    assert set(entry["Coord"]) == {"Vec", "Error", "Adjustment", "Height"}
    assert len(entry["Coord"]["Vec"]) == 8
    answer = await port.get("coordinate/nodes")
    assert answer.index > 0
    assert await port.read("coordinate/nodes?segment=none") == []
    if port.kind == "embedded":  # a real node tells of itself only after a while
        entries: list[dict[str, Any]] = await port.read("coordinate/nodes")
        assert [(item["Node"], item["Segment"]) for item in entries] == [(node, "")]
        assert await port.read(f"coordinate/node/{node}") == entries


@pytest.mark.parametrize("kind", ["service-defaults", "proxy-defaults", "service-router", "ingress-gateway", ""])
async def test_there_are_no_config_entries(port: ConsulPort, kind: str) -> None:
    assert await port.read(f"config/{kind}") == []
    if kind:
        assert (await port.ask("DELETE", f"config/{kind}/none")).status == 200


# From here on: what only our registry refuses.


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("PUT", "operator/autopilot/configuration", "nothing to steer"),
        ("PUT", "coordinate/update", "not kept by this registry"),
        ("PUT", "config", "not supported by this registry"),
    ],
)
async def test_what_would_not_be_kept_is_refused_and_not_ignored(
    ours: ConsulPort, method: str, path: str, words: str
) -> None:
    answer = await ours.ask(method, path, {})
    assert answer.status == 400
    assert words in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "connect/intentions"),
        ("POST", "connect/intentions"),
        ("GET", "connect/intentions/check?source=a&destination=b"),
        ("GET", f"connect/intentions/{UNKNOWN}"),
        ("GET", "connect/ca/roots"),
        ("PUT", "connect/ca/configuration"),
        ("POST", "agent/connect/authorize"),
        ("GET", "agent/connect/ca/roots"),
        ("GET", "agent/connect/ca/leaf/web"),
    ],
)
async def test_there_is_no_connect(ours: ConsulPort, method: str, path: str) -> None:
    answer = await ours.ask(method, path)
    assert (answer.status, answer.text) == (500, "Connect must be enabled in order to use this endpoint")


async def test_the_only_server_cannot_be_removed(ours: ConsulPort) -> None:
    (server,) = (await ours.read("operator/raft/configuration"))["Servers"]
    for query in (f"id={server['ID']}", f"address={server['Address']}"):
        answer = await ours.ask("DELETE", f"operator/raft/peer?{query}")
        assert (answer.status, answer.text) == (500, "The only server of a cluster cannot be removed")
