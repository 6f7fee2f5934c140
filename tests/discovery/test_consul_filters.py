"""`filter` expressions: what real Consul keeps and refuses, our registry keeps and refuses in the same words."""

import json
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from toska_tests import expressions
from toska_tests.discovery_rig import Answer, ConsulPort, RunningRegistry, consul_port
from toska_tests.waiting import wait_until

PREFIX = "Failed to create boolean expression evaluator: "


@dataclass(frozen=True, slots=True)
class Both:
    """Two registries with the same instances: `NAME-1`, which is well, and `NAME-2`, which is not."""

    consul: ConsulPort
    embedded: ConsulPort
    name: str

    async def ask(self, path: str, expression: str) -> tuple[Answer, Answer]:
        """Ask both the same."""
        asked = f"{path}{'&' if '?' in path else '?'}filter={quote(expression)}"
        return await self.consul.get(asked), await self.embedded.get(asked)


@pytest.fixture
async def both(consul_registry: RunningRegistry, embedded_registry: RunningRegistry) -> AsyncGenerator[Both]:
    name = f"f{uuid.uuid4().hex[:8]}"
    one, two = consul_registry, embedded_registry
    async with consul_port(one.kind, one.url) as consul, consul_port(two.kind, two.url, two.token) as embedded:
        for port in (consul, embedded):
            await _register(port, name)
        yield Both(consul, embedded, name)
        for port in (consul, embedded):
            for number in (1, 2):
                await port.put(f"agent/service/deregister/{name}-{number}")


async def _register(port: ConsulPort, name: str) -> None:
    first = {
        "ID": f"{name}-1",
        "Name": name,
        "Port": 20008,
        "Tags": ["primary", "v1"],
        "Meta": {"version": "1", "env": "prod"},
        "Check": {"TTL": "1h", "Status": "passing", "Notes": "hello"},
    }
    second = {
        "ID": f"{name}-2",
        "Name": name,
        "Port": 20009,
        "Address": "10.0.0.2",
        "Meta": {"version": "2"},
        "TaggedAddresses": {"wan": {"Address": "1.2.3.4", "Port": 99}},
        "Check": {"TTL": "1h", "Status": "critical"},
        "EnableTagOverride": True,
    }
    for body in (first, second):
        assert (await port.put("agent/service/register", body)).status == 200

    async def is_listed() -> bool:
        return len(await port.read(f"health/service/{name}")) == 2

    await wait_until(is_listed, what=f"{name} is listed")


def _ids(answer: Answer, name: str) -> list[str]:
    """Which of the two instances, or of their checks, an answer has."""
    assert answer.status == 200, answer.text
    body = json.loads(answer.content)
    return [f"{name}-{number}" for number in (1, 2) if f"{name}-{number}" in json.dumps(body)]


KEEPING: list[tuple[str, str, list[int]]] = [
    ("health/service/{}", 'Service.ID == "{}-1"', [1]),
    ("health/service/{}", "Service.ID == `{}-1`", [1]),
    ("health/service/{}", "Service.Port==20008", [1]),
    ("health/service/{}", "Service.Port != 20008", [2]),
    ("health/service/{}", 'Service.Port == "0x4E28"', [1]),
    ("health/service/{}", "Service.Tags contains primary", [1]),
    ("health/service/{}", "primary in Service.Tags", [1]),
    ("health/service/{}", "primary not in Service.Tags", [2]),
    ("health/service/{}", "Service.Tags not contains primary", [2]),
    ("health/service/{}", "Service.Tags is empty", [2]),
    ("health/service/{}", "Service.Tags is not empty", [1]),
    ("health/service/{}", "Service.Meta.version == 1", [1]),
    ("health/service/{}", 'Service.Meta["version"] == 2', [2]),
    ("health/service/{}", "Service.Meta.none == 2", []),
    ("health/service/{}", "Service.Meta.none != 2", [1, 2]),
    ("health/service/{}", "env in Service.Meta", [1]),
    ("health/service/{}", 'Service.Meta.version matches "[12]"', [1, 2]),
    ("health/service/{}", "Service.Meta.version not matches `^1$`", [2]),
    ("health/service/{}", "Checks.Status == critical", [2]),
    ("health/service/{}", "Checks.Status != critical", [1, 2]),
    ("health/service/{}", "not Checks.Status == critical", [1]),
    ("health/service/{}", "Checks.Notes == hello", [1]),
    ("health/service/{}", "Service.TaggedAddresses.wan.Port == 99", [2]),
    ("health/service/{}", "wan in Service.TaggedAddresses", [2]),
    ("health/service/{}", "Service.EnableTagOverride == true", [2]),
    ("health/service/{}", "Service.Weights.Passing == 1", [1, 2]),
    ("health/service/{}", "Service.Proxy.Upstreams is empty", [1, 2]),
    ("health/service/{}", 'Service.Proxy.MeshGateway.Mode == ""', [1, 2]),
    ("health/service/{}", "Service.Connect.Native == false", [1, 2]),
    ("health/service/{}", "Node.Datacenter == dc1 and Node.ID != `` and Node.Meta is not empty", [1, 2]),
    ("health/service/{}", "Service.Port == 20008 or Service.Port == 20009 and primary in Service.Tags", [1]),
    ("health/service/{}", "not (Service.Port == 20008 or Service.Port == 20009)", []),
    ("health/service/{}", "not in Service.Tags", []),
    ("health/service/{}", "\n Service.Port\t==\r\n20008 ", [1]),
    ("health/service/{}?passing", "Service.Port != 1", [1]),
    ("health/service/{}?tag=v1", "Service.Port != 1", [1]),
    ("health/checks/{}", "Status == passing", [1]),
    ("health/checks/{}", "Type == ttl and ServiceTags is empty", [2]),
    ("health/state/any", 'ServiceName == "{}" and Status == critical', [2]),
    ("health/state/passing", 'ServiceName == "{}"', [1]),
    ("catalog/service/{}", "ServicePort == 20009", [2]),
    ("catalog/service/{}", "v1 in ServiceTags", [1]),
    ("catalog/service/{}", "ServiceMeta.env == prod and ServiceProxy.Expose.Paths is empty", [1]),
    ("catalog/service/{}", 'ServiceAddress == "10.0.0.2" and ServiceKind == ""', [2]),
    ("catalog/service/{}", 'ServiceTaggedAddresses.wan.Address == "1.2.3.4"', [2]),
    ("catalog/service/{}", "ServiceWeights.Warning == 1 and ServiceConnect.Native == false", [1, 2]),
    ("agent/services", 'Service == "{}" and Meta.env == prod', [1]),
    ("agent/services", 'Service == "{}" and Weights.Passing == 1 and TaggedAddresses is empty', [1]),
    ("agent/checks", 'ServiceName == "{}" and Status == critical', [2]),
]


@pytest.mark.parametrize(("path", "expression", "numbers"), KEEPING)
async def test_both_keep_the_same(both: Both, path: str, expression: str, numbers: list[int]) -> None:
    path, expression = path.format(both.name), expression.replace("{}", both.name)
    kept = [_ids(answer, both.name) for answer in await both.ask(path, expression)]
    assert kept == [[f"{both.name}-{number}" for number in numbers]] * 2


@pytest.mark.parametrize(
    ("path", "expression", "numbers"),
    [
        ("catalog/node/{}", 'Service == "NAME" and Port == 20009', [2]),
        ("catalog/node-services/{}", 'Service == "NAME" and primary in Tags', [1]),
        ("health/node/{}", 'ServiceName == "NAME" and Status == critical', [2]),
        ("catalog/nodes", 'Node == "{}" and Meta is not empty', []),
    ],
)
async def test_both_keep_the_same_of_a_node(both: Both, path: str, expression: str, numbers: list[int]) -> None:
    for port in (both.consul, both.embedded):
        (node,) = [item["Node"] for item in await port.read("catalog/nodes") if item["Address"] == "127.0.0.1"]
        asked = quote(expression.replace("NAME", both.name).replace("{}", node))
        answer = await port.get(f"{path.format(node)}?filter={asked}")
        assert _ids(answer, both.name) == [f"{both.name}-{number}" for number in numbers]
        assert node in answer.text
        refused = await port.get(f"{path.format(node)}?filter=Bogus==1")
        assert (refused.status, refused.text) == (500, f'{PREFIX}Selector "Bogus" is not valid')


REFUSED = [
    "Bogus == 1",
    "Service.ID.x == 1",
    "Service == 1",
    "Service.Tags == x",
    "Service.Port matches 8",
    "Service.Port == abc",
    "Service.Port == 8080.0",
    'Service.Port == "08"',
    'Service.Port == "9223372036854775808"',
    "Service.EnableTagOverride == maybe",
    "Service.Meta.env is empty",
    "Service.Meta.env.x == 1",
    "Service.CreateIndex == 1",
    "Checks.Definition.HTTP == x",
    "Service.Namespace == x",
    "Service.ID matches `(x`",
    "Service.ID matches `(?=x)`",
    "Service.ID matches `a**`",
    "Service.ID matches `[a`",
    "Service.ID matches `*`",
    "Service.ID matches `a{1001}`",
    "Service.ID matches `\\`",
    "Service.ID == web-1",
    "Service.ID",
    "Service.ID ==",
    "== x",
    "(Service.ID == x",
    "Service.ID == x)",
    'Service.ID == "x',
    'Service.ID == "a\\qb"',
    'Service.ID == "a\nb"',
    "Service.ID == x and",
    "Service.ID == x y",
    "Service.ID == é",
    'Service.ID == "é" "é',
    "x in y in z",
    'x in "abc"',
    "5 in 6",
    "Service.Meta[x] == 1",
    'Service.Meta["x == 1',
    'Service.Meta["x" == 1',
    "Service.Port == 01",
    "Service.Port==1and Service.Port==2",
    "Service.ID == x AND y == z",
    "Service.ID\n is\n nothing",
    " ",
    "\x00",
    "()",
    "(",
    "-",
    "1.",
    "a.",
    "not not",
    "(a == b c",
]


@pytest.mark.parametrize("expression", REFUSED)
async def test_both_refuse_in_the_same_words(both: Both, expression: str) -> None:
    theirs, ours = await both.ask(f"health/service/{both.name}", expression)
    assert (ours.status, ours.text) == (theirs.status, theirs.text)
    assert ours.text.startswith(PREFIX)


@pytest.mark.parametrize(
    "path",
    [
        "agent/services",
        "agent/checks",
        "catalog/nodes",
        "catalog/service/none",
        "health/service/none",
        "health/service/none?index=999999&wait=10s",
        "health/service/",
        "health/checks/none",
        "health/state/any",
        "health/state/bogus",
        "catalog/nodes?dc=elsewhere",
    ],
)
async def test_an_expression_that_does_not_suit_is_refused_wherever_it_is_taken(both: Both, path: str) -> None:
    theirs, ours = await both.ask(path, "Bogus == 1")
    assert (ours.status, ours.text) == (theirs.status, theirs.text)


async def test_both_refuse_and_keep_the_same_whatever_is_asked(both: Both) -> None:
    cases: list[str] = []

    @given(text=expressions.GARBAGE | expressions.EXPRESSIONS.map(lambda case: case[0]))
    @settings(max_examples=250, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def collect(text: str) -> None:
        cases.append(text)

    collect()
    for text in filter(None, cases):
        theirs, ours = await both.ask("agent/services", text)
        assert (text, ours.status) == (text, theirs.status), (ours.text, theirs.text)
        if theirs.status != 200:
            assert (text, ours.text) == (text, theirs.text)
        elif "matches" not in text:  # where it differs on purpose: a name that is missing matches nothing
            assert (text, _ids(ours, both.name)) == (text, _ids(theirs, both.name))


async def test_a_watcher_with_a_filter_is_woken_and_sees_what_it_keeps(port: ConsulPort) -> None:
    name = f"f{uuid.uuid4().hex[:8]}"
    asked = f"health/service/{name}?filter=" + quote("Checks.Status == passing")
    before = await port.get(asked)
    body = {"Name": name, "Port": 20010, "Check": {"TTL": "1h", "Status": "passing"}}
    assert (before.status, json.loads(before.content)) == (200, [])
    assert (await port.put("agent/service/register", body)).status == 200

    async def is_seen() -> bool:
        answer = await port.get(f"{asked}&index={before.index}&wait=2s")
        return [entry["Service"]["ID"] for entry in json.loads(answer.content)] == [name]

    await wait_until(is_seen, what="the watcher sees it")
    assert (await port.put(f"agent/service/deregister/{name}")).status == 200


async def test_what_takes_no_filter_refuses_it_and_does_not_ignore_it(ours: ConsulPort) -> None:
    answer: Any = await ours.get("catalog/services?filter=" + quote("Service == x"))
    assert (answer.status, answer.text) == (400, "Filter expressions are not supported by catalog/services")
