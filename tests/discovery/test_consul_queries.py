"""Consul's prepared queries: what is true of a real Consul is true of our registry."""

import json
import uuid
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.discovery import Health
from toska_discovery.query import PreparedQuery
from toska_discovery.registry import Registry
from toska_discovery.store import SqliteStore
from toska_discovery.template import Template
from toska_tests.discovery_rig import ConsulPort
from toska_tests.waiting import wait_until

TTL = timedelta(seconds=60)
NOBODY = "00000000-0000-0000-0000-000000000000"
NO_UUID = "failed prepared query lookup: index error: UUID must be 36 characters"
FIELDS = ["ID", "Name", "Session", "Token", "Template", "Service", "DNS", "CreateIndex", "ModifyIndex"]


class QueryPort:
    """The query endpoints of one registry; deletes what it created."""

    def __init__(self, port: ConsulPort) -> None:
        self.port = port
        self.created: list[str] = []

    async def create(self, name: str, service: Any, **fields: Any) -> str:
        answer = await self.port.ask("POST", "query", {"Name": name, "Service": service, **fields})
        assert answer.status == 200, answer.text
        body = json.loads(answer.content)
        assert [*body] == ["ID"]
        self.created.append(body["ID"])
        return body["ID"]

    async def nodes(self, query: str, parameters: str = "") -> list[str]:
        found = await self.port.read(f"query/{query}/execute{parameters}")
        return sorted(entry["Service"]["ID"] for entry in found["Nodes"])


@pytest.fixture
async def queries(port: ConsulPort) -> AsyncGenerator[QueryPort]:
    opened = QueryPort(port)
    yield opened
    for query in opened.created:
        await port.ask("DELETE", f"query/{query}")


@pytest.fixture
def name() -> str:
    """A query, or a service, that no other test has."""
    return f"q-{uuid.uuid4().hex[:12]}"


async def register(consul: ConsulClient, name: str) -> None:
    """Three instances: `-a` passing, `-b` warning, `-c` critical."""
    for suffix, tags, status in (
        ("a", ("blue", "x"), Health.PASSING),
        ("b", ("green", "x"), Health.WARNING),
        ("c", ("blue",), Health.CRITICAL),
    ):
        own_id = f"{name}-{suffix}"
        check = TTLCheck(ttl=TTL, check_id=f"check-{own_id}", status=status)
        await consul.register_service(
            ServiceRegistration(name, own_id, "127.0.0.1", ord(suffix), tags, {"side": suffix}, checks=(check,))
        )

    async def are_listed() -> bool:
        found = {item.service.id: item.health for item in (await consul.health_service(name))[0]}
        return [*found.values()].count(Health.CRITICAL) == 1 and len(found) == 3

    await wait_until(are_listed)


async def test_a_query_is_shown_with_exactly_these_fields(port: ConsulPort, queries: QueryPort, name: str) -> None:
    service = {
        "Service": "consul",
        "Failover": {"NearestN": 2, "Datacenters": ["dc2"]},
        "OnlyPassing": True,
        "IgnoreCheckIDs": None,
        "Near": "_agent",
        "Tags": ["a", "!b"],
        "NodeMeta": {"k": "v"},
        "ServiceMeta": {"m": "w"},
        "Connect": False,
    }
    created = await queries.create(name, service, DNS={"TTL": "10s"})
    answer = await port.get(f"query/{created}")
    (query,) = json.loads(answer.content)
    assert [*query] == FIELDS
    assert [*query["Service"]] == [*service]
    assert query["Service"] == service
    assert query["Template"] == {"Type": "", "Regexp": "", "RemoveEmptyTags": False}
    assert (query["ID"], query["Name"], query["Session"], query["Token"]) == (created, name, "", "")
    assert query["DNS"] == {"TTL": "10s"}
    assert answer.headers["x-consul-effective-consistency"] == "leader"
    assert answer.index >= query["ModifyIndex"] == query["CreateIndex"]
    assert query in await port.read("query")
    plain = await queries.create(f"{name}-plain", {"Service": "x"})
    ((shown,), nothing) = (await port.read(f"query/{plain}"), None)
    assert shown["Service"]["Failover"] == {"NearestN": 0, "Datacenters": nothing}
    assert [shown["Service"][part] for part in ("Tags", "NodeMeta", "ServiceMeta")] == [nothing] * 3


async def test_a_query_is_changed_and_deleted(port: ConsulPort, queries: QueryPort, name: str) -> None:
    created = await queries.create(name, {"Service": "x"})
    (before,) = await port.read(f"query/{created}")
    answer = await port.put(f"query/{created}", {"Name": f"{name}-new", "Service": {"Service": "y"}})
    assert (answer.status, answer.content) == (200, b"")
    (after,) = await port.read(f"query/{created}")
    assert (after["Name"], after["Service"]["Service"]) == (f"{name}-new", "y")
    assert after["CreateIndex"] == before["CreateIndex"] < after["ModifyIndex"]
    assert (await port.get(f"query/{name}/explain")).status == 404
    answer = await port.ask("DELETE", f"query/{created}")
    assert (answer.status, answer.content) == (200, b"")
    gone = await port.get(f"query/{created}")
    assert (gone.status, gone.text) == (404, "Query not found")


async def test_a_query_finds_the_instances_that_it_asks_for(
    consul: ConsulClient, port: ConsulPort, queries: QueryPort, name: str
) -> None:
    await register(consul, name)
    a, b, c = (f"{name}-{suffix}" for suffix in "abc")
    wanted: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [a, b]),
        ({"OnlyPassing": True}, [a]),
        ({"IgnoreCheckIDs": [f"check-{c}", f"check-{b}"], "OnlyPassing": True}, [a, b, c]),
        ({"Tags": ["X", "blue"]}, [a]),
        ({"Tags": ["!Blue"]}, [b]),
        ({"ServiceMeta": {"side": "b"}}, [b]),
        ({"NodeMeta": {"consul-network-segment": ""}}, [a, b]),
        ({"NodeMeta": {"rack": "1"}}, []),
        ({"Failover": {"NearestN": 1, "Datacenters": ["dc9"]}, "Near": "_agent"}, [a, b]),
    ]
    for number, (service, found) in enumerate(wanted):
        query = await queries.create(f"{name}-{number}", {"Service": name, **service})
        assert await queries.nodes(query) == found, service
        assert await queries.nodes(f"{name}-{number}") == found
    assert len(await queries.nodes(f"{name}-0", "?limit=1")) == 1
    assert len(await queries.nodes(f"{name}-0", "?limit=-1&near=_agent")) == 2
    assert await queries.nodes(f"{name}-0", "?connect=true") == []
    answer = await port.get(f"query/{name}-1/execute")
    body = json.loads(answer.content)
    (found,) = body.pop("Nodes")
    entries = {entry["Service"]["ID"]: entry for entry in await port.read(f"health/service/{name}")}
    assert [*found] == ["Node", "Service", "Checks"]
    assert (found["Node"], found["Service"]) == (entries[a]["Node"], entries[a]["Service"])
    assert {check["CheckID"] for check in found["Checks"]} == {"serfHealth", f"check-{a}"}
    assert body == {
        "Service": name, "DNS": {"TTL": ""}, "Datacenter": "dc1", "Failovers": 0,
        "Index": 0, "LastContact": 0, "KnownLeader": True, "ConsistencyLevel": "leader",
    }  # fmt: skip
    assert answer.index == 1


async def test_a_template_makes_a_query_of_every_name_that_it_begins(
    port: ConsulPort, queries: QueryPort, name: str
) -> None:
    template = {"Type": "name_prefix_match", "Regexp": f"^{name}-(.*)-(.*)$", "RemoveEmptyTags": True}
    service = {
        "Service": "${match(1)} ${match(0)} ${match(9)} $${x} ${agent.segment}.",
        "Near": "_agent",
        "Tags": ["${match(2)}", "${ name.prefix }|${name.suffix}|${name.full}"],
    }
    await queries.create(f"{name}-", service, Template=template)
    await queries.create(f"{name}-long-", {"Service": "longer"}, Template={"Type": "name_prefix_match"})
    await queries.create(f"{name}-long-exact", {"Service": "exact"})

    async def explain(asked: str) -> dict[str, Any]:
        body = await port.read(f"query/{asked}/explain")
        assert [*body] == ["Query", "Index", "LastContact", "KnownLeader", "ConsistencyLevel"]
        assert [*body["Query"]] == FIELDS
        return body["Query"]["Service"]

    found = await explain(f"{name}-one-two")
    assert found["Service"] == f"one {name}-one-two  ${{x}} ."
    assert found["Tags"] == ["two", f"{name}-|one-two|{name}-one-two"]
    assert (await explain(f"{name}-one"))["Tags"] == [f"{name}-|one|{name}-one"]
    assert (await explain(f"{name}-long-one"))["Service"] == "longer"
    assert (await explain(f"{name}-long-exact"))["Service"] == "exact"
    assert (await port.get(f"query/{name}/explain")).status == 404


async def test_a_query_ends_with_its_session(port: ConsulPort, queries: QueryPort) -> None:
    session = json.loads((await port.put("session/create")).content)["ID"]
    created = await queries.create("", {"Service": "x"}, Session=session)
    assert (await port.read(f"query/{created}"))[0]["Session"] == session
    await port.put(f"session/destroy/{session}")
    assert (await port.get(f"query/{created}")).status == 404


async def test_two_queries_cannot_be_mistaken_for_each_other(port: ConsulPort, queries: QueryPort, name: str) -> None:
    created = await queries.create(name, {"Service": "x"})
    for taken, what in ((name, "name"), (created, "ID")):
        answer = await port.ask("POST", "query", {"Name": taken, "Service": {"Service": "x"}})
        assert (answer.status, answer.text) == (500, f"name '{taken}' aliases an existing query {what}")


BAD = "failed compiling template: Bad"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({}, "Invalid prepared query: Must be bound to a session"),
        ({"Service": {"Service": "x"}}, "Invalid prepared query: Must be bound to a session"),
        ({"Name": "n", "Service": {}}, "Invalid prepared query: Must provide a Service name to query"),
        ({"ID": "x", "Name": "n"}, "ID must be empty when creating a new prepared query"),
        ({"Session": "x"}, "invalid session: index error: UUID must be 36 characters"),
        ({"Session": NOBODY}, f'invalid session "{NOBODY}"'),
        ({"DNS": {"TTL": "abc"}}, "Invalid prepared query: Bad DNS TTL 'abc': time: invalid duration \"abc\""),
        ({"DNS": {"TTL": "-1s"}}, "Invalid prepared query: DNS TTL '-1000000000', must be >=0"),
        (
            {"Service": {"Service": "x", "Failover": {"NearestN": -1}}},
            "Invalid prepared query: Bad NearestN '-1', must be >= 0",
        ),
        (
            {"Service": {"Service": "x", "NodeMeta": {"": "v"}}},
            "Invalid prepared query: Couldn't load metadata pair ('', 'v'): Key cannot be blank",
        ),
        ({"Template": {"Type": "x"}}, f"{BAD} Template.Type 'x'"),
        (
            {"Template": {"Type": "name_prefix_match", "Regexp": "(("}},
            f"{BAD} Regexp: error parsing regexp: missing closing ): `((`",
        ),
        (
            {"Template": {"Type": "name_prefix_match"}, "Service": {"Service": "${bogus"}},
            f"{BAD} format '${{bogus' in Service.Service: parse error: syntax error",
        ),
        (
            {"Template": {"Type": "name_prefix_match"}, "Service": {"Service": "${bogus.x}"}},
            f"{BAD} evaluation for '${{bogus.x}}' in Service.Service: 1:3: unknown variable accessed: bogus.x",
        ),
    ],
)
async def test_what_is_wrong_with_a_query_is_told_in_consuls_words(
    port: ConsulPort, name: str, query: dict[str, Any], text: str
) -> None:
    plain = {"Name": name, "Service": {"Service": "x"}}
    whole = query if "Must be bound" in text else {**plain, **query}
    answer = await port.ask("POST", "query", whole)
    assert (answer.status, answer.text) == (500, text)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "query", 400, "Request decode failed: EOF"),
        ("PUT", "query", 405, "method PUT not allowed"),
        ("POST", "query/x", 405, "method POST not allowed"),
        ("PUT", "query/x/execute", 405, "method PUT not allowed"),
        ("GET", "query/x", 500, NO_UUID),
        ("GET", f"query/{NOBODY}", 404, "Query not found"),
        ("DELETE", "query/x", 500, f"Prepared Query lookup failed: {NO_UUID}"),
        ("DELETE", f"query/{NOBODY}", 500, f"Cannot modify non-existent prepared query: '{NOBODY}'"),
        ("GET", "query/nobody-has-this/execute", 404, "Query not found"),
        ("GET", "query/nobody-has-this/explain", 404, "Query not found"),
        ("GET", "query?dc=elsewhere", 500, "No path to datacenter"),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_in_consuls_words(
    port: ConsulPort, method: str, path: str, status: int, text: str
) -> None:
    answer = await port.ask(method, path)
    assert (answer.status, answer.text) == (status, text)


async def test_a_limit_that_is_no_number_is_refused(port: ConsulPort, queries: QueryPort, name: str) -> None:
    await queries.create(name, {"Service": "x"})
    answer = await port.get(f"query/{name}/execute?limit=a")
    assert (answer.status, answer.text) == (500, 'Bad limit: strconv.Atoi: parsing "a": invalid syntax')


async def test_queries_survive_a_restart(tmp_path: Path) -> None:
    query = PreparedQuery(
        NOBODY, "n", service="s", datacenters=("dc2",), tags=("a",), node_meta={"k": "v"}, template=Template("x", True)
    )
    async with SqliteStore.open(tmp_path) as store:
        registry = Registry(sweep_interval_s=1, now=0)
        store.save(registry.coordination.put_query(query, update=False))
        store.save(registry.coordination.put_query(PreparedQuery(NOBODY[:-1] + "1", "gone", service="s"), update=False))
        store.save(registry.coordination.drop_query(NOBODY[:-1] + "1"))
        await store.flush()
    async with SqliteStore.open(tmp_path) as store:
        assert store.stored.queries == [registry.coordination.queries.by_id[NOBODY]]
