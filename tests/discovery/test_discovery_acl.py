"""The registry with ACLs: every request needs one of the mesh's tokens, which Consul's tools can ask about."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from toska_discovery.settings import Settings
from toska_tests.discovery_rig import ConsulPort, RunningDiscovery, consul_port, discovery_in

HIDDEN = "<hidden>"
ORDERS = {"Name": "orders", "Port": 9001, "Address": "10.0.0.1"}


@dataclass(frozen=True, slots=True)
class Doors:
    """The Consul API, as it is asked with each token."""

    discovery: RunningDiscovery
    admin: ConsulPort
    join: ConsulPort
    nobody: ConsulPort
    stranger: ConsulPort


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncGenerator[Doors]:
    async with discovery_in(tmp_path, registry_acl=True) as discovery, AsyncExitStack() as stack:
        credentials = discovery.credentials
        tokens = (credentials.admin, credentials.join, "", "toska_join_forged")
        ports = [await stack.enter_async_context(consul_port("embedded", discovery.consul, token)) for token in tokens]
        yield Doors(discovery, *ports)


@pytest.mark.parametrize("path", ["catalog/services", "health/service/orders", "agent/self", "kv/a", "status/leader"])
async def test_reads_need_a_token_on_loopback_too(doors: Doors, path: str) -> None:
    answer = await doors.nobody.get(path)
    assert (answer.status, answer.text) == (403, "Permission denied")
    answer = await doors.stranger.get(path)
    assert (answer.status, answer.text) == (403, "ACL not found")
    assert (await doors.admin.get(path)).status in {200, 404}


async def test_an_app_s_token_reads_and_registers_services_and_no_more(doors: Doors) -> None:
    assert (await doors.join.put("agent/service/register", ORDERS)).status == 200
    assert len(await doors.join.read("health/service/orders")) == 1
    for method, path in (("GET", "kv/a"), ("PUT", "kv/a"), ("GET", "acl/tokens"), ("GET", "acl/policies")):
        assert (await doors.join.ask(method, path)).status == 403
    assert (await doors.join.put("agent/service/register", {**ORDERS, "Name": "toska-router"})).status == 403


async def test_the_mesh_s_own_services_find_each_other(doors: Doors) -> None:
    assert [entry["Service"]["ID"] for entry in await doors.admin.read("health/service/toska-discovery?passing")]


async def test_a_token_is_told_what_it_may_and_never_its_secret(doors: Doors) -> None:
    admin, join = await doors.admin.read("acl/token/self"), await doors.join.read("acl/token/self")
    assert [policy["Name"] for policy in admin["Policies"]] == ["global-management"]
    assert [policy["Name"] for policy in join["Policies"]] == ["join"]
    assert admin["AccessorID"] != join["AccessorID"]
    assert (admin["SecretID"], join["SecretID"]) == (HIDDEN, HIDDEN)
    assert (await doors.stranger.get("acl/token/self")).status == 403
    assert (await doors.nobody.get("acl/token/self")).status == 403


async def test_the_admin_token_lists_tokens_and_policies(doors: Doors) -> None:
    tokens = await doors.admin.read("acl/tokens")
    policies = await doors.admin.read("acl/policies")
    assert [item["SecretID"] for item in tokens] == [HIDDEN, HIDDEN]
    assert [item["Name"] for item in policies] == ["global-management", "join"]
    assert await doors.admin.read(f"acl/token/{tokens[1]['AccessorID']}") == tokens[1]
    by_id = await doors.admin.read(f"acl/policy/{policies[1]['ID']}")
    assert by_id == await doors.admin.read("acl/policy/name/join")
    for path in ("acl/roles", "acl/auth-methods", "acl/binding-rules", "acl/list"):
        assert await doors.admin.read(path) == []
    for path in ("acl/token/none", "acl/policy/none", "acl/role/none", "acl/auth-method/none", "acl/info/none"):
        assert (await doors.admin.get(path)).status == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "acl/token"),
        ("PUT", "acl/token/x/clone"),
        ("DELETE", "acl/token/x"),
        ("PUT", "acl/policy"),
        ("PUT", "acl/role"),
        ("PUT", "acl/create"),
        ("PUT", "acl/destroy/x"),
        ("POST", "acl/login"),
        ("PUT", "agent/token/default"),
        ("PUT", "acl/bootstrap"),
    ],
)
async def test_nothing_is_made_changed_or_removed_here(doors: Doors, method: str, path: str) -> None:
    answer = await doors.admin.ask(method, path)
    assert answer.status == 403
    assert answer.text.startswith("Permission denied: ")


async def test_the_agent_says_that_acls_are_enforced(doors: Doors) -> None:
    about = await doors.admin.read("agent/self")
    assert about["DebugConfig"]["ACLsEnabled"] is True
    assert about["Member"]["Tags"]["acls"] == "1"
    assert (await doors.admin.read("acl/replication"))["Enabled"] is False


def test_it_is_off_unless_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment(home=tmp_path).registry_acl is False
    monkeypatch.setenv("TOSKA_REGISTRY_ACL", "on")
    assert Settings.from_environment(home=tmp_path).registry_acl is True
