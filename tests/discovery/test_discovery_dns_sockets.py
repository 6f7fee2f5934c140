"""DNS on real sockets: many queries on a connection, bad company, ports, recursors and metrics."""

import asyncio
import contextlib
import socket
from pathlib import Path

import dns.message
import pytest
from toska_common.errors import ConfigurationError
from toska_discovery.settings import Settings
from toska_tests.clients import http_client
from toska_tests.discovery_rig import RunningDiscovery, consul_port, discovery_in
from toska_tests.dns_rig import DnsPort, foreign_server, question
from toska_tests.ports import free_port
from toska_tests.waiting import wait_until


async def _register(discovery: RunningDiscovery, name: str = "orders") -> None:
    async with consul_port("embedded", discovery.consul, discovery.credentials.admin) as port:
        body = {"Name": name, "Address": "10.0.0.1", "Port": 9001}
        assert (await port.put("agent/service/register", body)).status == 200


def _framed(packet: bytes) -> bytes:
    return len(packet).to_bytes(2) + packet


async def _read_framed(reader: asyncio.StreamReader) -> dns.message.Message:
    async with asyncio.timeout(5):
        return dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))


async def test_queries_on_one_connection_are_answered_in_turn(tmp_path: Path) -> None:
    port = free_port()
    async with discovery_in(tmp_path, dns_port=port) as discovery:
        await _register(discovery)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        queries = [question(name) for name in ("orders.service.consul", "none.service.consul", "example.com")]
        stream = b"".join(_framed(query.to_wire()) for query in queries)
        for start in range(0, len(stream), 7):
            writer.write(stream[start : start + 7])
            await writer.drain()
        answers = [await _read_framed(reader) for _ in queries]
        assert [answer.id for answer in answers] == [query.id for query in queries]
        assert [answer.rcode().name for answer in answers] == ["NOERROR", "NXDOMAIN", "REFUSED"]
        writer.close()


async def test_a_connection_that_talks_nonsense_is_closed_and_others_go_on(tmp_path: Path) -> None:
    port = free_port()
    async with discovery_in(tmp_path, dns_port=port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x00\x03GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        zone = DnsPort("embedded", port)
        assert await zone.exchange(b"\xff" * 40, within=0.1) is None
        assert (await zone.ask("none.service.consul", tcp=True)).rcode == "NXDOMAIN"


async def test_a_stop_does_not_wait_for_connections(tmp_path: Path) -> None:
    port = free_port()
    async with asyncio.timeout(10):
        async with discovery_in(tmp_path, dns_port=port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_names_of_others_are_asked_of_the_recursors(tmp_path: Path) -> None:
    port, nobody = free_port(), free_port()
    async with foreign_server("192.0.2.9") as recursor:
        recursors = f"127.0.0.1:{nobody},127.0.0.1:{recursor}"
        async with discovery_in(tmp_path, dns_port=port, dns_recursors=recursors) as discovery:
            await _register(discovery)
            zone = DnsPort("embedded", port)
            for tcp in (False, True):
                answer = await zone.ask("shop.example.com", tcp=tcp)
                assert (answer.values, "RA" in answer.flags) == (["192.0.2.9"], True)
                assert (await zone.ask("orders.service.consul", tcp=tcp)).values == ["10.0.0.1"]


async def test_recursors_that_do_not_answer_are_a_failure(tmp_path: Path) -> None:
    port = free_port()
    async with discovery_in(tmp_path, dns_port=port, dns_recursors=f"127.0.0.1:{free_port()}"):
        assert (await DnsPort("embedded", port).ask("shop.example.com")).rcode == "SERVFAIL"


async def test_answers_are_counted(tmp_path: Path) -> None:
    port = free_port()
    async with discovery_in(tmp_path, dns_port=port) as discovery, http_client() as client:
        zone = DnsPort("embedded", port)
        await zone.ask("none.service.consul")
        await zone.ask("consul", "NS", tcp=True)

        async def are_counted() -> bool:
            text = (await client.get(f"{discovery.rest}/metrics")).text
            wanted = ('rcode="NXDOMAIN",transport="udp"', 'rcode="NOERROR",transport="tcp"')
            return all(f"toska_discovery_dns_answers_total{{{labels}}} 1.0" in text for labels in wanted)

        await wait_until(are_counted)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_port_that_is_taken_is_named(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            async with discovery_in(tmp_path, dns_port=port):
                pass
        found, other = caught.value.split(ConfigurationError)
        assert found is not None
        assert other is None
        assert f"cannot listen on 127.0.0.1:{port}" in repr(found)


async def test_no_port_is_opened_where_none_is_wanted(tmp_path: Path) -> None:
    async with discovery_in(tmp_path, dns_port=-1) as discovery, http_client() as client:
        assert (await client.get(f"{discovery.rest}/health/ready")).status_code == 200


def test_settings_are_read_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_DISCOVERY_DNS_SERVICE_TTL", "orders=5s, web-*=1m,*=500ms")
    monkeypatch.setenv("TOSKA_DISCOVERY_DNS_RECURSORS", "192.0.2.1,192.0.2.2:5353,2001:db8::1,[2001:db8::2]:53")
    read = Settings.from_environment(home=tmp_path)
    assert {name: ttl.total_seconds() for name, ttl in read.dns_service_ttl.items()} == {
        "orders": 5,
        "web-*": 60,
        "*": 0.5,
    }
    assert read.dns_recursors == (
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::2", 53),
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOSKA_DISCOVERY_DNS_SERVICE_TTL", "5s"),
        ("TOSKA_DISCOVERY_DNS_SERVICE_TTL", "orders=soon"),
        ("TOSKA_DISCOVERY_DNS_RECURSORS", "dns.example.com"),
        ("TOSKA_DISCOVERY_DNS_RECURSORS", "192.0.2.1:99999"),
        ("TOSKA_DISCOVERY_DNS_DOMAIN", "a..b"),
        ("TOSKA_DISCOVERY_DNS_PORT", "-2"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        Settings.from_environment(home=tmp_path)
