"""The DNS server without its sockets: packets in, packets out, from a registry that changes."""

from dataclasses import replace

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.contracts.discovery import Health
from toska_discovery.dns.policy import DnsPolicy
from toska_discovery.dns.server import MAX_KEPT, MAX_UDP_BYTES, DnsCounts, DnsServer, Foreign
from toska_discovery.dns.zone import Found, Zone
from toska_discovery.node import NodeDefinition
from toska_discovery.registry import Registry
from toska_tests.dns_rig import DnsAnswer, question
from toska_tests.registrations import NOON, check, service

NODE = NodeDefinition("here", "192.0.2.1", meta={"rack": "7", "rfc1035-note": "plain", "long": "x" * 400})


class Rig:
    """A registry and its DNS."""

    def __init__(self, policy: DnsPolicy | None = None) -> None:
        self.registry = Registry(sweep_interval_s=1.0, now=0.0, node=NODE)
        self.counts = DnsCounts()
        self.found: Found | None = None
        policy = policy or DnsPolicy()
        zone = Zone(
            self.registry.listing,
            policy,
            "dc1",
            port=8500,
            serial=lambda: 7,
            find_query=lambda name: self.found if name == "nearest" else None,
        )
        self.server = DnsServer(zone, policy, self.counts)

    def add(self, number: int = 1, name: str = "orders", status: Health = Health.PASSING, address: str = "") -> None:
        """List an instance."""
        definition = service(f"{name}-{number}", name, 9000 + number)
        definition = replace(definition, address=address or f"10.0.{number // 250}.{number % 250 + 1}")
        lease = check(f"service:{definition.id}", status=status)
        self.registry.register(definition, [lease], 0.0, NOON)

    def ask(self, name: str, rdtype: str = "A", *, edns: int | None = None, udp: bool = True) -> DnsAnswer:
        """Ask, and have the answer read by a strict reader."""
        return self.send(question(name, rdtype, edns=edns).to_wire(), udp=udp)

    def send(self, packet: bytes, *, udp: bool = True) -> DnsAnswer:
        """Send a packet."""
        reply = self.server.reply(packet, udp=udp)
        assert isinstance(reply, bytes)
        assert reply[:2] == packet[:2]
        return DnsAnswer(dns.message.from_wire(reply))


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Packets stand in the names of tests, which are the same in every process and every run.
QUERY = question("orders.service.consul", number=4711).to_wire()


def test_an_answer_follows_the_registry(rig: Rig) -> None:
    assert rig.ask("orders.service.consul").rcode == "NXDOMAIN"
    rig.add(1)
    assert rig.ask("orders.service.consul").values == ["10.0.0.2"]
    rig.add(2)
    assert rig.ask("orders.service.consul").values == ["10.0.0.2", "10.0.0.3"]
    rig.registry.report("service:orders-1", Health.CRITICAL, "", 1.0)
    assert rig.ask("orders.service.consul").values == ["10.0.0.3"]
    rig.registry.deregister("orders-2")
    assert rig.ask("orders.service.consul").rcode == "NXDOMAIN"


def test_an_alias_follows_the_registry_too(rig: Rig) -> None:
    rig.add(1)
    rig.add(1, "front", address="orders.service.consul")
    assert "10.0.0.2" in rig.ask("front.service.consul").values
    rig.registry.deregister("orders-1")
    assert rig.ask("front.service.consul").values == ["orders.service.consul."]


def test_aliases_that_lead_to_each_other_end(rig: Rig) -> None:
    rig.add(1, "ping", address="pong.service.consul")
    rig.add(2, "pong", address="ping.service.consul")
    for rdtype in ("A", "SRV", "ANY"):
        assert rig.ask("ping.service.consul", rdtype).rcode == "NOERROR"


def test_addresses_come_before_aliases_and_one_alias_is_all_there_is(rig: Rig) -> None:
    rig.add(1, address="a.example.com")
    rig.add(2, address="b.example.com")
    assert len(rig.ask("orders.service.consul").values) == 1
    rig.add(3)
    assert rig.ask("orders.service.consul").values == ["10.0.0.4"]


def test_instances_with_a_warning_may_be_left_out() -> None:
    rig = Rig(DnsPolicy(only_passing=True))
    rig.add(1, status=Health.WARNING)
    assert rig.ask("orders.service.consul").rcode == "NXDOMAIN"
    rig.add(2)
    assert rig.ask("orders.service.consul").values == ["10.0.0.3"]


def test_times_to_live_are_set_by_name_and_prefix() -> None:
    rig = Rig(DnsPolicy(node_ttl_s=9, service_ttl_s={"*": 1, "ord*": 2, "orders": 3}))
    for name in ("orders", "ordinary", "bills"):
        rig.add(1, name)
    for name, ttl_s in (("orders", 3), ("ordinary", 2), ("bills", 1)):
        answer = rig.ask(f"{name}.service.consul")
        assert answer.message.answer[0].ttl == ttl_s if answer.message.answer else name != "bills"
    assert rig.ask("here.node.consul").message.answer[0].ttl == 9


def test_metadata_of_a_node_is_told_in_the_form_of_rfc_1464(rig: Rig) -> None:
    texts = rig.ask("here.node.consul", "TXT").values
    assert texts == sorted(['"rack=7"', '"plain"', f'"long={"x" * 250}" "{"x" * 150}"'])


def test_the_zone_may_have_another_name() -> None:
    rig = Rig(DnsPolicy(domain="mesh.internal"))
    rig.add(1)
    answer = rig.ask("orders.service.mesh.internal", "SRV")
    assert answer.values == ["1 1 9001 0a000002.addr.dc1.mesh.internal."]
    assert rig.ask("orders.service.consul").rcode == "REFUSED"


def test_a_prepared_query_is_asked_for_what_it_finds(rig: Rig) -> None:
    rig.add(1)
    assert rig.ask("nearest.query.consul").rcode == "NXDOMAIN"
    rig.found = Found("orders", tuple(rig.registry.instances.values()), ttl_s=7)
    for name in ("nearest.query.consul", "nearest.query.dc1.consul"):
        assert rig.ask(name).answers == [f"{name}. 7 A 10.0.0.2"]
    rig.found = None
    assert rig.ask("nearest.query.consul").rcode == "NXDOMAIN"


def test_what_a_prepared_query_finds_near_is_told_first(rig: Rig) -> None:
    for number in range(10):
        rig.add(number)
    rig.found = Found("orders", tuple(rig.registry.instances.values()), in_order=True)
    for _ in range(5):
        assert rig.ask("nearest.query.consul").told == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_reverse_lookups_of_a_large_registry_catch_up(rig: Rig) -> None:
    for number in range(3000):
        rig.add(number, f"s{number}")
    assert rig.ask("1.0.0.10.in-addr.arpa", "PTR").values == ["s0.service.dc1.consul."]
    rig.add(1, "late", address="10.9.9.9")
    seen = [rig.ask("9.9.9.10.in-addr.arpa", "PTR").rcode for _ in range(4)]
    assert seen[-1] == "NOERROR"


def test_answers_are_shuffled_and_none_is_favoured(rig: Rig) -> None:
    for number in range(10):
        rig.add(number)
    counted = dict.fromkeys((f"10.0.0.{number + 1}" for number in range(10)), 0)
    for _ in range(1000):
        counted[rig.ask("orders.service.consul").told[0]] += 1
    assert min(counted.values()) > 50


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("rdtype", ["A", "SRV"])
@pytest.mark.parametrize("edns", [None, 0, 512, 1232, 4096, 65535])
def test_an_answer_fits_and_says_that_it_was_cut_if_it_shall(truncate: bool, rdtype: str, edns: int | None) -> None:
    rig = Rig(DnsPolicy(truncate=truncate))
    for number in range(400):
        rig.add(number)
    packet = question("orders.service.consul", rdtype, edns=edns).to_wire()
    reply = rig.server.reply(packet, udp=True)
    assert isinstance(reply, bytes)
    assert len(reply) <= max(512, min(edns or 0, MAX_UDP_BYTES))
    answer = DnsAnswer(dns.message.from_wire(reply))
    assert 0 < len(answer.values) < 400
    assert ("TC" in answer.flags) == truncate
    whole = rig.ask("orders.service.consul", rdtype, udp=False)
    assert (len(whole.values), "TC" in whole.flags) == (400, False)
    if rdtype == "SRV":
        told = {text.split()[0] for text in whole.additional if " A " in text}
        assert told == {value.split()[3] for value in whole.values}


def test_an_answer_over_tcp_that_is_too_long_even_for_that_is_cut() -> None:
    rig = Rig(DnsPolicy(truncate=True))
    for number in range(1500):
        rig.add(number)
    answer = rig.ask("orders.service.consul", "SRV", udp=False)
    assert 500 < len(answer.values) < 1500
    assert "TC" in answer.flags


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (QUERY[:2] + b"\x28\x00" + QUERY[4:], "NOTIMP"),
        (QUERY[:2] + b"\x10\x00" + QUERY[4:], "NOTIMP"),
        (QUERY[:4] + b"\x00\x00" + QUERY[6:], "FORMERR"),
        (QUERY[:4] + b"\x00\x02" + QUERY[6:], "FORMERR"),
        (QUERY[:6] + b"\x00\x01" + QUERY[8:], "FORMERR"),
        (QUERY[:10] + b"\x00\x01" + QUERY[12:], "FORMERR"),
        (QUERY[:10] + b"\xff\xff" + QUERY[12:], "FORMERR"),
        (QUERY[:-1], "FORMERR"),
        (QUERY + b"\x00", "FORMERR"),
        (QUERY[:12], "FORMERR"),
        (QUERY[:12] + b"\xc0\x0c" + QUERY[-4:], "FORMERR"),
        (QUERY[:12] + b"\x40" + b"x" * 64 + b"\x00" + QUERY[-4:], "FORMERR"),
        (QUERY[:12] + b"\x01x" * 127 + b"\x01y\x00" + QUERY[-4:], "FORMERR"),
        (QUERY[:-2] + b"\x00\x03", "REFUSED"),
        (question("consul", "AXFR", number=4711).to_wire(), "REFUSED"),
        (question("example.com", number=4711).to_wire(), "REFUSED"),
    ],
)
def test_a_packet_that_cannot_be_served(rig: Rig, packet: bytes, rcode: str) -> None:
    reply = rig.server.reply(packet, udp=True)
    assert isinstance(reply, bytes)
    assert (reply[:2], reply[2] & 0x80, reply[3] & 0x0F) == (packet[:2], 0x80, dns.rcode.from_text(rcode))
    assert rig.counts.answers == {("udp", rcode): 1}


@pytest.mark.parametrize("packet", [b"", QUERY[:11], QUERY[:2] + b"\x81\x00" + QUERY[4:]])
def test_what_is_no_query_gets_no_answer(rig: Rig, packet: bytes) -> None:
    assert rig.server.reply(packet, udp=True) is None
    assert rig.counts.answers == {("udp", "dropped"): 1}


def test_edns_of_another_version_is_told_which_there_is(rig: Rig) -> None:
    query = question("orders.service.consul", edns=1232)
    query.use_edns(edns=1, payload=1232)
    answer = rig.send(query.to_wire())
    assert (answer.rcode, answer.message.edns) == ("BADVERS", 0)


def test_options_of_edns_that_are_not_known_do_no_harm(rig: Rig) -> None:
    rig.add(1)
    query = question("orders.service.consul", edns=1232)
    options: list[dns.edns.Option] = [dns.edns.GenericOption("COOKIE", b"cookie!!")]
    query.use_edns(edns=0, payload=1232, options=options)
    assert rig.send(query.to_wire()).values == ["10.0.0.2"]


def test_names_of_others_go_to_the_recursors_if_recursion_is_wanted() -> None:
    rig = Rig(DnsPolicy(recursors=(("192.0.2.53", 53),)))
    wanted = question("example.com")
    assert isinstance(rig.server.reply(wanted.to_wire(), udp=True), Foreign)
    wanted.flags &= ~dns.flags.RD
    assert rig.send(wanted.to_wire()).rcode == "REFUSED"
    assert "RA" in rig.ask("none.service.consul").flags


def test_what_is_kept_is_bounded(rig: Rig) -> None:
    rig.add(1)
    packet = question("orders.service.consul", edns=512).to_wire()
    for size in range(MAX_KEPT + 100):
        different = packet.replace(b"\x00\x29\x02\x00", b"\x00\x29" + (512 + size).to_bytes(2))
        assert rig.server.reply(different, udp=True) is not None
    assert rig.send(packet).values == ["10.0.0.2"]
    kept = rig.server._kept  # pyright: ignore[reportPrivateUsage] - nobody else tells
    assert len(kept) == MAX_KEPT


@given(packet=st.binary(max_size=80) | st.binary(max_size=60).map(lambda raw: QUERY[:12] + raw))
@settings(max_examples=500, deadline=None)
def test_no_packet_makes_the_server_stumble(packet: bytes) -> None:
    rig = Rig()
    rig.add(1)
    for udp in (True, False):
        reply = rig.server.reply(packet, udp=udp)
        if reply is not None:
            assert isinstance(reply, bytes)
            dns.message.from_wire(reply)


@given(
    labels=st.lists(
        st.sampled_from(["orders", "service", "consul", "node", "here", "addr", "0a000002", "_tcp", "_orders", "dc1"])
        | st.binary(min_size=1, max_size=63).map(lambda raw: raw.hex()[:63]),
        max_size=6,
    ),
    rdtype=st.sampled_from(["A", "AAAA", "SRV", "TXT", "ANY", "SOA", "NS", "PTR", "MX", "CNAME"]),
    edns=st.none() | st.integers(0, 65535),
)
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked_is_answered_in_good_form(labels: list[str], rdtype: str, edns: int | None) -> None:
    rig = Rig()
    rig.add(1)
    try:
        query = question(".".join([*labels, "consul"]), rdtype, edns=edns)
    except dns.exception.DNSException:
        return
    answer = rig.send(query.to_wire())
    assert answer.rcode in {"NOERROR", "NXDOMAIN", "REFUSED"}
    assert answer.message.question == query.question
    assert (answer.message.edns >= 0) == (edns is not None)
