"""Instances whose process is gone are noticed by their port; those that are slow, stopped or busy are not."""

import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.discovery import Health
from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.vacancies.ledger import Ledger, lease_of
from toska_discovery.vacancies.listeners import Listener, find_listing, list_by_proc, list_by_sock_diag
from toska_discovery.vacancies.watcher import is_ours
from toska_tests.clients import scraped
from toska_tests.discovery_rig import ConsulPort, RunningDiscovery, consul_port, discovery_in
from toska_tests.ports import free_port
from toska_tests.programs import running
from toska_tests.waiting import wait_until

LOOPBACK = ip_address("127.0.0.1").packed


def instance(
    key: str = "orders-1", address: str = "127.0.0.1", port: int = 9001, *, kind: CheckKind = CheckKind.TTL
) -> Instance:
    definition = CheckDefinition(f"service:{key}", "lease", 15.0, kind=kind)
    check = Check(definition, Health.PASSING, "", 1, 1)
    service = ServiceDefinition(key, "orders", address, port)
    return Instance(service, {definition.id: check}, datetime(2026, 1, 1, tzinfo=UTC), 1, 1)


def ledger_of(*instances: Instance) -> Ledger:
    ledger = Ledger(lambda address: address.startswith(("127.", "10.0.0.1", "::1", "fe80")))
    ledger.take({item.service.id: item for item in instances})
    return ledger


def listeners(*places: tuple[str, int]) -> frozenset[Listener]:
    return frozenset((ip_address(address).packed, port) for address, port in places)


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::"])
def test_an_instance_whose_port_was_open_and_closes_is_suspected_once(bound: str) -> None:
    ledger = ledger_of(instance())
    assert ledger.look(listeners((bound, 9001))) == []
    assert ledger.look(listeners((bound, 9001), ("127.0.0.1", 1))) == []
    assert ledger.look(listeners()) == ["orders-1"]
    assert ledger.look(listeners()) == []


def test_an_instance_whose_port_opens_again_is_watched_again() -> None:
    ledger = ledger_of(instance())
    for _ in range(3):
        assert ledger.look(listeners(("127.0.0.1", 9001))) == []
        assert ledger.look(listeners()) == ["orders-1"]


def test_a_port_that_never_was_open_says_nothing() -> None:
    ledger = ledger_of(instance(), instance("elsewhere", "192.0.2.1"))
    assert ledger.look(listeners()) == []
    assert ledger.look(listeners(("127.0.0.1", 9002))) == []
    assert ledger.look(listeners()) == []


def test_an_instance_that_comes_to_a_port_that_somebody_just_left_is_not_suspected_for_it() -> None:
    ledger = ledger_of(instance("old"))
    ledger.look(listeners(("127.0.0.1", 9001)))
    ledger.take({"old": None, "new": instance("new")})
    assert ledger.look(listeners()) == []
    assert ledger.look(listeners(("127.0.0.1", 9001))) == []
    assert ledger.look(listeners()) == ["new"]


def test_another_listener_on_the_port_keeps_only_those_that_it_answers_for() -> None:
    ledger = ledger_of(instance("a", "127.0.0.1"), instance("b", "127.0.0.2"))
    ledger.look(listeners(("127.0.0.1", 9001), ("127.0.0.2", 9001)))
    assert ledger.look(listeners(("127.0.0.2", 9001))) == ["a"]
    assert ledger.look(listeners(("0.0.0.0", 9001))) == []


@pytest.mark.parametrize(
    "other",
    [
        instance(address="192.0.2.1"),
        instance(address="orders.example"),
        instance(port=0),
        instance(kind=CheckKind.HTTP),
        replace(instance(), node="elsewhere"),
        replace(instance(), checks={}),
    ],
)
def test_only_instances_with_a_lease_and_a_port_on_this_machine_are_watched(other: Instance) -> None:
    ledger = ledger_of(other)
    assert not ledger
    ledger.look(listeners(("0.0.0.0", 9001)))
    assert ledger.look(listeners()) == []


def test_a_verdict_on_an_instance_does_not_make_it_a_new_one() -> None:
    ledger = ledger_of(instance())
    ledger.look(listeners(("127.0.0.1", 9001)))
    ledger.take({"orders-1": replace(instance(), modify_index=7)})
    assert ledger.look(listeners()) == ["orders-1"]


def test_a_look_costs_the_same_with_thousands_of_instances_whose_ports_are_closed() -> None:
    many = [instance(f"i{number}", f"127.0.{number % 200}.1", 1 + number % 60_000) for number in range(20_000)]
    ledger = ledger_of(*many)
    ledger.look(listeners())
    started = time.process_time()
    for number in range(100):
        ledger.look(listeners(("127.0.0.1", 61_000 + number)))
    assert time.process_time() - started < 0.5


def test_the_check_that_stands_for_a_life_is_the_renewed_one() -> None:
    alive = instance()
    assert lease_of(alive) == "service:orders-1"
    http = CheckDefinition("a", "http", kind=CheckKind.HTTP)
    more = {"a": Check(http, Health.PASSING, "", 1, 1), "z": replace(alive.checks["service:orders-1"])}
    assert lease_of(replace(alive, checks=more)) == "z"
    dead = replace(alive.checks["service:orders-1"], status=Health.CRITICAL)
    assert lease_of(replace(alive, checks={"service:orders-1": dead})) is None


# From here on: the kernel's own lists, and processes that die.


@pytest.mark.parametrize("listing", [list_by_sock_diag, list_by_proc])
def test_listeners_are_listed_by_address_and_port(listing: Any) -> None:
    with ExitStack() as stack:
        expected: set[Listener] = set()
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.7"), (socket.AF_INET6, "::1")):
            sock = stack.enter_context(socket.create_server((address, 0), family=family))
            expected.add((ip_address(address).packed, sock.getsockname()[1]))
            client = stack.enter_context(socket.create_connection(sock.getsockname()[:2]))
            expected_not = (ip_address(address).packed, client.getsockname()[1])
            assert expected_not not in listing()
        bound = stack.enter_context(closing(socket.socket()))
        bound.bind(("127.0.0.1", 0))
        assert expected <= listing()
        assert (LOOPBACK, bound.getsockname()[1]) not in listing()
    assert not expected & listing()


def test_this_machine_offers_a_listing_and_knows_its_own_addresses() -> None:
    assert find_listing() is list_by_sock_diag
    assert is_ours("127.0.0.1")
    assert is_ours("127.9.9.9")
    assert not is_ours("192.0.2.1")
    assert not is_ours("8.8.8.8")


LISTEN = """
import signal, socket, sys
sock = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=0)
print("listening", flush=True)
signal.pause()
"""


@pytest.fixture
async def discovery(tmp_path: Path) -> AsyncGenerator[RunningDiscovery]:
    async with discovery_in(tmp_path) as running:
        yield running


@pytest.fixture
async def ours(discovery: RunningDiscovery) -> AsyncGenerator[ConsulPort]:
    async with consul_port("embedded", discovery.consul, discovery.credentials.admin) as port:
        yield port


async def check_of(ours: ConsulPort, name: str) -> tuple[str, str]:
    (found,) = await ours.read(f"health/checks/{name}")
    return found["Status"], found["Output"]


async def until(ours: ConsulPort, name: str, status: str) -> float:
    async def has_it() -> bool:
        return (await check_of(ours, name))[0] == status

    return await wait_until(has_it, what=f"{name} is {status}")


async def start(ours: ConsulPort, port: int, **service: Any) -> None:
    body = {"Name": "orders", "Address": "127.0.0.1", "Port": port, "Check": {"TTL": "1h", "Status": "passing"}}
    assert (await ours.put("agent/service/register", {**body, **service})).status == 200


async def looked(discovery: RunningDiscovery) -> None:
    """Wait for a look that began after this was called."""
    url = f"{discovery.rest}/metrics"
    before = await scraped(url, "toska_discovery_port_looks_total")

    async def is_done() -> bool:
        return await scraped(url, "toska_discovery_port_looks_total") > before

    await wait_until(is_done, what="a look at the ports")


async def test_a_killed_process_is_critical_within_a_second_and_comes_back_when_it_renews(
    discovery: RunningDiscovery, ours: ConsulPort, tmp_path: Path
) -> None:
    port = free_port()
    command = [sys.executable, "-c", LISTEN, str(port)]
    with running(command, tmp_path) as program:
        await program.line()
        await start(ours, port)
        await looked(discovery)
        program.send(signal.SIGKILL)
        await until(ours, "orders", "critical")  # long before its lease lapses
        _, output = await check_of(ours, "orders")
        assert output.startswith(f"connection refused: nobody listens on 127.0.0.1:{port} any more")
    with running(command, tmp_path) as program:
        await program.line()
        await ours.put("agent/check/pass/service:orders")
        await until(ours, "orders", "passing")
        await looked(discovery)
        program.send(signal.SIGKILL)
        await until(ours, "orders", "critical")


async def test_a_process_that_is_stopped_or_has_a_full_accept_queue_stays_passing(
    discovery: RunningDiscovery, ours: ConsulPort, tmp_path: Path
) -> None:
    port = free_port()
    with running([sys.executable, "-c", LISTEN, str(port)], tmp_path) as program, ExitStack() as stack:
        await program.line()
        await start(ours, port)
        await looked(discovery)
        program.send(signal.SIGSTOP)
        for _ in range(5):
            client = stack.enter_context(closing(socket.socket()))
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        await looked(discovery)
        assert (await check_of(ours, "orders"))[0] == "passing"
        program.send(signal.SIGCONT)


async def test_a_server_that_is_restarted_in_place_stays_passing(discovery: RunningDiscovery, ours: ConsulPort) -> None:
    port = free_port()
    await ours.put(
        "agent/service/register",
        {"Name": "orders", "Address": "127.0.0.1", "Port": port, "Check": {"TTL": "1h", "Status": "passing"}},
    )
    for _ in range(2):
        with closing(socket.create_server(("127.0.0.1", port))):
            await looked(discovery)
    with closing(socket.create_server(("127.0.0.1", port))):
        await looked(discovery)
        assert (await check_of(ours, "orders"))[0] == "passing"


async def test_the_watch_can_be_turned_off(
    discovery: RunningDiscovery, ours: ConsulPort, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    home = tmp_path_factory.mktemp("unwatched")
    async with (
        discovery_in(home, watch_ports=False) as unwatched,
        consul_port("embedded", unwatched.consul, unwatched.credentials.admin) as theirs,
    ):
        with running([sys.executable, "-c", LISTEN, str(port)], tmp_path) as program:
            await program.line()
            await start(theirs, port)
            await start(ours, port)
            await looked(discovery)
        await until(ours, "orders", "critical")
        assert (await check_of(theirs, "orders"))[0] == "passing"
