"""DNS: what real Consul answers, our registry answers; and where it differs, it does so on purpose."""

import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

import dns.asyncresolver
import dns.resolver
import pytest
from toska_tests.discovery_rig import ConsulPort, RunningRegistry
from toska_tests.dns_rig import DnsAnswer, DnsPort
from toska_tests.waiting import wait_until

SOA = "consul. 0 SOA ns.consul. hostmaster.consul. 0 3600 600 86400 0"
MANY = 40


@pytest.fixture
def zone(registry: RunningRegistry) -> DnsPort:
    """The DNS of each registry in turn."""
    return DnsPort(registry.kind, registry.dns_port)


@pytest.fixture
def our_zone(embedded_registry: RunningRegistry) -> DnsPort:
    """The DNS of our registry."""
    return DnsPort(embedded_registry.kind, embedded_registry.dns_port)


@pytest.fixture
async def node(port: ConsulPort) -> str:
    """The registry's own node."""
    (only,) = [item["Node"] for item in await port.read("catalog/nodes")]
    return only


class Services:
    """Registers instances, and takes them off in the end."""

    def __init__(self, port: ConsulPort) -> None:
        self._port = port
        self._ids: list[str] = []
        self.name = f"d{uuid.uuid4().hex[:8]}"

    async def add(self, address: str, number: int = 1, name: str = "", **more: Any) -> str:
        """Register an instance at `address`, and wait until it is in the catalog."""
        name = name or self.name
        own_id = f"{name}-{number}"
        body = {"ID": own_id, "Name": name, "Address": address, "Port": 20100 + number, **more}
        assert (await self._port.put("agent/service/register", body)).status == 200
        self._ids.append(own_id)

        async def is_listed() -> bool:
            return own_id in [item["ServiceID"] for item in await self._port.read(f"catalog/service/{name}")]

        await wait_until(is_listed, what=f"{own_id} is listed")
        return own_id

    async def remove_all(self) -> None:
        """Take them off."""
        for own_id in self._ids:
            await self._port.put(f"agent/service/deregister/{own_id}")


@pytest.fixture
async def services(port: ConsulPort) -> AsyncGenerator[Services]:
    made = Services(port)
    yield made
    await made.remove_all()


async def test_a_service_has_the_addresses_of_its_instances(zone: DnsPort, services: Services) -> None:
    await services.add("10.0.0.1", 1)
    await services.add("10.0.0.2", 2)
    await services.add("2001:db8::1", 3)
    name = f"{services.name}.service.consul"
    answer = await zone.ask(name)
    assert (answer.rcode, answer.flags) == ("NOERROR", {"QR", "AA", "RD"})
    assert answer.answers == [f"{name}. 0 A 10.0.0.1", f"{name}. 0 A 10.0.0.2"]
    assert (await zone.ask(name, "AAAA")).values == ["2001:db8::1"]
    assert (await zone.ask(name, "ANY")).values == ["10.0.0.1", "10.0.0.2", "2001:db8::1"]
    assert (await zone.ask(f"{services.name}.service.dc1.consul")).values == ["10.0.0.1", "10.0.0.2"]
    assert (await zone.ask(name, tcp=True)).values == ["10.0.0.1", "10.0.0.2"]


async def test_names_have_no_case_and_are_told_as_they_were_asked(zone: DnsPort, services: Services) -> None:
    await services.add("10.0.0.1", name=services.name.upper())
    name = f"{services.name.title()}.Service.CONSUL"
    answer = await zone.ask(name)
    assert answer.values == ["10.0.0.1"]
    assert str(answer.message.answer[0].name) == f"{name}."


async def test_a_service_without_an_address_is_at_its_node(zone: DnsPort, services: Services, node: str) -> None:
    await services.add("")
    assert (await zone.ask(f"{services.name}.service.consul")).values == ["127.0.0.1"]
    answer = await zone.ask(f"{services.name}.service.consul", "SRV")
    assert answer.values == [f"1 1 20101 {node}.node.dc1.consul."]
    assert answer.additional == [
        f"{node}.node.dc1.consul. 0 A 127.0.0.1",
        f'{node}.node.dc1.consul. 0 TXT "consul-network-segment="',
    ]


@pytest.mark.parametrize("form", ["{}.service.consul", "_{}._tcp.service.consul", "_{}._blue.service.dc1.consul"])
async def test_ports_and_weights_are_in_srv_records(zone: DnsPort, services: Services, node: str, form: str) -> None:
    await services.add("10.0.0.1", Tags=["blue"], Weights={"Passing": 7, "Warning": 2})
    answer = await zone.ask(form.format(services.name), "SRV")
    assert answer.values == ["1 7 20101 0a000001.addr.dc1.consul."]
    assert answer.additional == [
        "0a000001.addr.dc1.consul. 0 A 10.0.0.1",
        f'{node}.node.dc1.consul. 0 TXT "consul-network-segment="',
    ]
    assert (await zone.ask("0a000001.addr.dc1.consul")).values == ["10.0.0.1"]


async def test_instances_of_ipv6_have_srv_records_too(zone: DnsPort, services: Services) -> None:
    await services.add("2001:db8::5")
    answer = await zone.ask(f"{services.name}.service.consul", "SRV")
    target = "20010db8000000000000000000000005.addr.dc1.consul."
    assert answer.values == [f"1 1 20101 {target}"]
    assert f"{target} 0 AAAA 2001:db8::5" in answer.additional
    assert (await zone.ask(target, "AAAA")).values == ["2001:db8::5"]


async def test_tags_narrow_the_instances(zone: DnsPort, services: Services) -> None:
    await services.add("10.0.0.1", 1, Tags=["Blue", "v1.2"])
    await services.add("10.0.0.2", 2)
    assert (await zone.ask(f"blue.{services.name}.service.consul")).values == ["10.0.0.1"]
    assert (await zone.ask(f"v1.2.{services.name}.service.consul")).values == ["10.0.0.1"]
    assert (await zone.ask(f"green.{services.name}.service.consul")).rcode == "NXDOMAIN"


async def test_only_those_who_are_not_critical_are_told(zone: DnsPort, port: ConsulPort, services: Services) -> None:
    name = f"{services.name}.service.consul"
    check = {"TTL": "1h", "Status": "passing"}
    well = await services.add("10.0.0.1", 1, Check=check, Weights={"Passing": 7, "Warning": 2})
    await services.add("10.0.0.2", 2, Check={"TTL": "1h", "Status": "critical"})
    assert (await zone.ask(name)).values == ["10.0.0.1"]
    assert (await port.put(f"agent/check/warn/service:{well}")).status == 200

    async def has_changed_its_weight() -> bool:
        return (await zone.ask(name, "SRV")).values == ["1 2 20101 0a000001.addr.dc1.consul."]

    await wait_until(has_changed_its_weight, what="the warning is seen")
    assert (await port.put(f"agent/check/fail/service:{well}")).status == 200

    async def is_gone() -> bool:
        return (await zone.ask(name)).rcode == "NXDOMAIN"

    await wait_until(is_gone, what="nobody is well")


@pytest.mark.parametrize(
    "name",
    [
        "none.service.consul",
        "a.b.none.service.consul",
        "none.node.consul",
        "none.query.consul",
        "none.service.elsewhere.consul",
        "none.bogus.consul",
        "_none._tcp.service.consul",
        "ns.consul",
    ],
)
async def test_a_name_that_there_is_not(zone: DnsPort, name: str) -> None:
    for rdtype in ("A", "ANY"):
        answer = await zone.ask(name, rdtype)
        assert (answer.rcode, answer.flags, answer.answers) == ("NXDOMAIN", {"QR", "AA", "RD"}, [])
        assert answer.authority == [SOA]


async def test_a_type_that_a_name_has_not(zone: DnsPort, services: Services) -> None:
    await services.add("10.0.0.1")
    answer = await zone.ask(f"{services.name}.service.consul", "AAAA")
    assert (answer.rcode, answer.answers, answer.authority) == ("NOERROR", [], [SOA])


async def test_an_address_that_is_a_name_becomes_an_alias(zone: DnsPort, services: Services) -> None:
    await services.add("shop.example.com")
    name = f"{services.name}.service.consul"
    assert (await zone.ask(name)).answers == [f"{name}. 0 CNAME shop.example.com."]
    assert (await zone.ask(name, "CNAME")).values == ["shop.example.com."]
    assert (await zone.ask(name, "SRV")).values == ["1 1 20101 shop.example.com."]


async def test_an_alias_in_the_zone_is_followed(zone: DnsPort, services: Services) -> None:
    await services.add("10.0.0.9", 1)
    behind = f"{services.name}.service.consul"
    front = await services.add(behind, 2, name=f"{services.name}-front")
    name = f"{front.removesuffix('-2')}.service.consul"
    assert set((await zone.ask(name)).answers) == {f"{name}. 0 CNAME {behind}.", f"{behind}. 0 A 10.0.0.9"}
    answer = await zone.ask(name, "SRV")
    assert answer.values == [f"1 1 20102 {behind}."]
    assert f"{behind}. 0 A 10.0.0.9" in answer.additional


async def test_a_node_has_its_address_and_its_metadata(zone: DnsPort, node: str) -> None:
    for name in (f"{node}.node.consul", f"{node}.node.dc1.consul"):
        text = f'{name}. 0 TXT "consul-network-segment="'
        answer = await zone.ask(name)
        assert (answer.answers, answer.additional) == ([f"{name}. 0 A 127.0.0.1"], [text])
        assert (await zone.ask(name, "TXT")).answers == [text]
        assert set((await zone.ask(name, "ANY")).answers) == {f"{name}. 0 A 127.0.0.1", text}
        assert (await zone.ask(name, "AAAA")).rcode == "NOERROR"


async def test_other_nodes_and_what_is_on_them_are_told(zone: DnsPort, port: ConsulPort, services: Services) -> None:
    other, name = f"n{services.name}.rack", services.name
    body: dict[str, Any] = {
        "Node": other,
        "Address": "10.88.0.1",
        "NodeMeta": {"rack": "7", "rfc1035-note": "plain"},
        "Service": {"Service": name, "Port": 5432, "Tags": ["Main"]},
    }
    assert (await port.put("catalog/register", body)).status == 200
    answer = await zone.ask(f"{other}.node.consul", "ANY")
    assert answer.values == ['"plain"', '"rack=7"', "10.88.0.1"]
    assert (await zone.ask(f"main.{name}.service.consul")).values == ["10.88.0.1"]
    found = await zone.ask(f"{name}.service.consul", "SRV")
    assert found.values == [f"1 1 5432 {other}.node.dc1.consul."]
    assert f"{other}.node.dc1.consul. 0 A 10.88.0.1" in found.additional
    assert (await zone.ask("1.0.88.10.in-addr.arpa", "PTR")).values == [f"{other}.node.dc1.consul."]
    moved = {**body, "Address": "10.88.0.2"}
    assert (await port.put("catalog/register", moved)).status == 200
    assert (await zone.ask(f"{name}.service.consul")).values == ["10.88.0.2"]
    assert (await zone.ask(f"{other}.node.consul")).values == ["10.88.0.2"]
    down = {"Node": other, "Address": "10.88.0.2", "Check": {"CheckID": "up", "Name": "up", "Status": "critical"}}
    assert (await port.put("catalog/register", down)).status == 200
    assert (await zone.ask(f"{name}.service.consul")).rcode == "NXDOMAIN"
    assert (await zone.ask(f"{other}.node.consul")).values == ["10.88.0.2"]
    assert (await port.put("catalog/deregister", {"Node": other})).status == 200
    assert (await zone.ask(f"{other}.node.consul")).rcode == "NXDOMAIN"


async def test_an_instance_in_maintenance_is_left_out(zone: DnsPort, port: ConsulPort, services: Services) -> None:
    own_id = await services.add("10.0.0.1")
    assert (await port.put(f"agent/service/maintenance/{own_id}?enable=true")).status == 200

    async def is_left_out() -> bool:
        return (await zone.ask(f"{services.name}.service.consul")).rcode == "NXDOMAIN"

    await wait_until(is_left_out, what="it is left out")


async def test_prepared_queries_are_asked_by_name(zone: DnsPort, port: ConsulPort, services: Services) -> None:
    await services.add("10.0.0.1", 1, Tags=["blue"], Meta={"v": "1"})
    await services.add("10.0.0.2", 2, Tags=["green"])
    await services.add("10.0.0.3", 3, Check={"TTL": "1h", "Status": "warning"})
    await services.add("10.0.0.4", 4, Check={"TTL": "1h", "Status": "critical"})
    made: list[str] = []

    async def query(name: str, **service: Any) -> str:
        body = {"Name": name, "Service": {"Service": services.name, **service}, "DNS": {"TTL": "7s"}}
        answer = await port.ask("POST", "query", body)
        assert answer.status == 200, answer.text
        made.append(json.loads(answer.content)["ID"])
        return f"{name}.query.consul"

    every = await query(f"{services.name}-all")
    assert (await zone.ask(every)).answers == [f"{every}. 7 A 10.0.0.{number}" for number in (1, 2, 3)]
    assert (await zone.ask(await query(f"{services.name}-ok", OnlyPassing=True))).values == ["10.0.0.1", "10.0.0.2"]
    tagged = await query(f"{services.name}-tag", Tags=["!green", "blue"])
    assert (await zone.ask(tagged, "SRV")).values == ["1 1 20101 0a000001.addr.dc1.consul."]
    assert (await zone.ask(await query(f"{services.name}-meta", ServiceMeta={"v": "1"}))).values == ["10.0.0.1"]
    assert (await zone.ask(await query(f"{services.name}-none", Tags=["red"]))).rcode == "NXDOMAIN"
    for query_id in made:
        assert (await port.ask("DELETE", f"query/{query_id}")).status == 200
    assert (await zone.ask(every)).rcode == "NXDOMAIN"


async def test_the_zone_says_who_serves_it(zone: DnsPort, node: str) -> None:
    served = f"consul. 0 NS {node}.node.dc1.consul."
    address = f"{node}.node.dc1.consul. 0 A 127.0.0.1"
    answer = await zone.ask("consul", "NS")
    assert (answer.answers, answer.additional) == ([served], [address])
    answer = await zone.ask("consul", "SOA")
    assert (answer.authority, answer.additional) == ([served], [address])
    (soa,) = answer.answers
    assert soa.startswith("consul. 0 SOA ns.consul. hostmaster.consul. ")


async def test_the_registry_is_a_service_of_its_own_zone(zone: DnsPort) -> None:
    assert (await zone.ask("consul.service.consul")).values == ["127.0.0.1"]
    assert (await zone.ask("none.consul.service.consul")).rcode == "NXDOMAIN"


async def test_addresses_are_found_in_reverse(zone: DnsPort, services: Services, node: str) -> None:
    await services.add("10.77.0.1", 1)
    await services.add("2001:db8::77", 2)
    (pointed,) = (await zone.ask("1.0.0.127.in-addr.arpa", "PTR")).answers
    assert pointed == f"1.0.0.127.in-addr.arpa. 0 PTR {node}.node.dc1.consul."
    assert (await zone.ask("1.0.77.10.in-addr.arpa", "PTR")).values == [f"{services.name}.service.dc1.consul."]
    reverse = "7.7.0.0." + "0." * 20 + "8.b.d.0.1.0.0.2.ip6.arpa"
    assert (await zone.ask(reverse, "PTR")).values == [f"{services.name}.service.dc1.consul."]


async def test_names_of_others_are_refused(zone: DnsPort) -> None:
    for name in ("example.com", "notconsul", "."):
        answer = await zone.ask(name)
        assert (answer.rcode, answer.answers, answer.authority) == ("REFUSED", [], [])


async def test_an_answer_is_cut_to_what_the_asker_takes(zone: DnsPort, services: Services) -> None:
    for number in range(MANY):
        await services.add(f"10.0.1.{number}", number)
    name = f"{services.name}.service.consul"
    for rdtype in ("A", "SRV"):
        plain = await zone.ask(name, rdtype)
        assert (len(plain.values), plain.size <= 512, "TC" in plain.flags) == (3, True, False)
        assert len((await zone.ask(name, rdtype, edns=100)).values) == 3
        assert len((await zone.ask(name, rdtype, edns=4096)).values) == MANY
        assert len((await zone.ask(name, rdtype, tcp=True)).values) == MANY
    medium = await zone.ask(name, "SRV", edns=1232)
    assert 3 < len(medium.values) < MANY
    assert medium.message.edns == 0
    seen = {tuple((await zone.ask(name)).values) for _ in range(20)}
    assert len(seen) > 10


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_resolver_finds_services(zone: DnsPort, services: Services, tcp: bool) -> None:
    await services.add("10.0.0.1", 1)
    await services.add("10.0.0.2", 2)
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], zone.port
    answer = await resolver.resolve(f"{services.name}.service.consul", tcp=tcp)
    assert set(DnsAnswer(answer.response).values) == {"10.0.0.1", "10.0.0.2"}
    with pytest.raises(dns.resolver.NXDOMAIN):
        await resolver.resolve("none.service.consul", tcp=tcp)


# From here on: where ours is stricter with the protocol than Consul, or goes further.


@pytest.mark.parametrize("name", ["consul", "service.consul", "dc1.consul", "node.dc1.consul", "addr.consul"])
async def test_a_name_above_others_is_there_and_empty(our_zone: DnsPort, name: str) -> None:
    answer = await our_zone.ask(name)
    assert (answer.rcode, answer.answers, answer.authority) == ("NOERROR", [], [SOA])


@pytest.mark.parametrize("name", ["zz.addr.consul", "0a0000.addr.consul", "x.0a000001.addr.consul", "ग.node.consul"])
async def test_a_name_that_is_no_address_is_not_there(our_zone: DnsPort, name: str) -> None:
    assert (await our_zone.ask(name)).rcode == "NXDOMAIN"


async def test_a_type_that_is_not_asked_for_is_not_told(our_zone: DnsPort) -> None:
    for name in ("consul.service.consul", "0a000001.addr.consul"):
        for rdtype in ("TXT", "MX", "AAAA"):
            answer = await our_zone.ask(name, rdtype)
            assert (answer.rcode, answer.answers, answer.authority) == ("NOERROR", [], [SOA])


@pytest.mark.parametrize(
    "name", ["8.8.8.8.in-addr.arpa", "arpa", "1.in-addr.arpa", "x.8.8.8.in-addr.arpa", "1.ip6.arpa"]
)
async def test_an_address_that_nobody_has_is_others_business(our_zone: DnsPort, name: str) -> None:
    assert (await our_zone.ask(name, "PTR")).rcode == "REFUSED"
