"""One probe of each kind but HTTP against real sockets: what it asks, and what it makes of the answer."""

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from toska_common.contracts.discovery import Health
from toska_common.targets import TargetRules
from toska_discovery.check import Probe
from toska_discovery.probing.dialling import BadTarget, Dialler, split_address
from toska_discovery.probing.grpc import NOT_SERVING, GrpcRunner
from toska_discovery.probing.http import HttpRunner
from toska_discovery.probing.script import ScriptRunner
from toska_discovery.probing.tcp import TcpRunner
from toska_discovery.probing.verdict import Verdict
from toska_tests.probed import CannedServer, answer, grpc_server, hang
from toska_tests.waiting import wait_until

PASSING, WARNING, CRITICAL = Health.PASSING, Health.WARNING, Health.CRITICAL
LIMIT = 4096


# TCP, and where nobody may connect.


async def test_a_tcp_check_passes_where_somebody_listens() -> None:
    runner = TcpRunner(Dialler(TargetRules()))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            verdict = await runner.run(Probe(target=f"{host}:{port}"), LIMIT)
            assert verdict == Verdict(PASSING, f"TCP connect {host}:{port}: Success")
    verdict = await runner.run(Probe(target=f"127.0.0.1:{port}"), LIMIT)
    assert verdict == Verdict(CRITICAL, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
        ("127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
        ("127.0.0.1:http", "dial tcp: address http: invalid port"),
        ("::1:80", "dial tcp: address ::1:80: too many colons in address"),
        ("no.such.host.invalid:80", "dial tcp: lookup no.such.host.invalid: no such host"),
        ("169.254.169.254:80", "the mesh does not connect there: 169.254.169.254 is a link-local address"),
    ],
)
async def test_a_tcp_target_that_cannot_be_connected_to_says_why(target: str, reason: str) -> None:
    verdict = await TcpRunner(Dialler(TargetRules())).run(Probe(target=target), LIMIT)
    assert verdict == Verdict(CRITICAL, reason)


def test_addresses_are_read_as_they_are_written() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("a.example:443") == ("a.example", 443)
    assert split_address(":8080") == ("localhost", 8080)
    with pytest.raises(BadTarget):
        split_address("[::1]80")


async def test_a_full_accept_queue_takes_no_longer_than_the_timeout() -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        try:
            for client in waiting:
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            verdict = await TcpRunner(Dialler(TargetRules())).run(
                Probe(target=f"127.0.0.1:{port}", timeout_s=0.2), LIMIT
            )
            assert verdict == Verdict(CRITICAL, f"dial tcp 127.0.0.1:{port}: i/o timeout")
        finally:
            for client in waiting:
                client.close()


async def test_the_meshs_own_management_ports_are_not_asked_by_whatever_name(server: CannedServer) -> None:
    dialler = Dialler(TargetRules(frozenset({("127.0.0.1", server.port)})))
    server.answers["/"] = answer()
    async with HttpRunner.open(dialler) as http:
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0"):
            verdict = await http.run(Probe(target=f"http://{host}:{server.port}/"), LIMIT)
            assert verdict.status is CRITICAL
            assert "is a management address of the mesh" in verdict.output
            tcp = await TcpRunner(dialler).run(Probe(target=f"{host}:{server.port}"), LIMIT)
            assert "is a management address of the mesh" in tcp.output
            grpc = await GrpcRunner(dialler).run(Probe(target=f"{host}:{server.port}"), LIMIT)
            assert "is a management address of the mesh" in grpc.output
    assert server.requests == []


# gRPC.


async def test_a_grpc_check_passes_where_the_service_says_that_it_serves() -> None:
    runner = GrpcRunner(Dialler(TargetRules()))
    async with grpc_server() as server:
        await server.say("", serving=True)
        await server.say("shop.Orders", serving=False)
        own, orders = f"127.0.0.1:{server.port}", f"localhost:{server.port}/shop.Orders"
        assert await runner.run(Probe(target=own), LIMIT) == Verdict(PASSING, f"gRPC check {own}: success")
        assert await runner.run(Probe(target=orders), LIMIT) == Verdict(CRITICAL, NOT_SERVING)
        await server.say("shop.Orders", serving=True)
        assert (await runner.run(Probe(target=orders), LIMIT)).status is PASSING
        unknown = await runner.run(Probe(target=f"{own}/shop.None"), LIMIT)
        assert unknown.output.startswith("rpc error: code = NotFound desc = ")
    closed = await runner.run(Probe(target=own), LIMIT)
    assert closed.output == (
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing '
        f'dial tcp {own}: connect: connection refused"'
    )


async def test_a_grpc_check_through_tls_verifies_unless_told_not_to(certificate: Path) -> None:
    runner = GrpcRunner(Dialler(TargetRules()))
    async with grpc_server(certificate=certificate) as server:
        await server.say("", serving=True)
        target = f"localhost:{server.port}"
        refused = await runner.run(Probe(target=target, tls=True), LIMIT)
        assert refused.status is CRITICAL
        assert "authentication handshake failed" in refused.output
        verdict = await runner.run(Probe(target=target, tls=True, tls_skip_verify=True), LIMIT)
        assert verdict == Verdict(PASSING, f"gRPC check {target}: success")


async def test_a_server_that_speaks_no_grpc_or_nothing_is_critical(server: CannedServer) -> None:
    runner = GrpcRunner(Dialler(TargetRules()))
    server.answers["*"] = hang
    target = f"127.0.0.1:{server.port}"
    silent = await runner.run(Probe(target=target, timeout_s=0.2), LIMIT)
    assert silent.output == "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    server.answers["*"] = answer("400 Bad Request")
    assert (await runner.run(Probe(target=target), LIMIT)).output.startswith("rpc error: code = Unavailable desc = ")
    bad = await runner.run(Probe(target="127.0.0.1/x"), LIMIT)
    assert "missing port in address" in bad.output


# Scripts.


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("echo out; echo err >&2", Verdict(PASSING, "out\nerr\n")),
        ("echo careful; exit 1", Verdict(WARNING, "careful\n")),
        ("echo bad; exit 2", Verdict(CRITICAL, "bad\n")),
        ("kill -9 $$", Verdict(CRITICAL, "")),
        ("printf 1234567890abcdef", Verdict(PASSING, "Captured 10 of 16 bytes\n...\n7890abcdef")),
    ],
)
async def test_the_exit_code_of_a_script_is_the_verdict(script: str, verdict: Verdict) -> None:
    assert await ScriptRunner().run(Probe(args=("/bin/sh", "-c", script)), 10) == verdict


async def test_a_program_that_is_not_there_is_critical() -> None:
    verdict = await ScriptRunner().run(Probe(args=("/no/such",)), LIMIT)
    assert verdict == Verdict(CRITICAL, "fork/exec /no/such: no such file or directory")


async def test_a_script_that_takes_too_long_ends_with_all_it_has_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {file}; wait"

    async def had_begun() -> bool:
        started = time.monotonic()
        verdict = await ScriptRunner().run(Probe(args=("/bin/sh", "-c", script), timeout_s=0.5), LIMIT)
        assert verdict == Verdict(CRITICAL, "Timed out (500ms) running check")
        assert time.monotonic() - started < 20
        return file.exists() and file.read_text().endswith("\n")

    await wait_until(had_begun, what="a script that says what it has started before its time is over")
    child = Path(f"/proc/{file.read_text().strip()}")

    def has_ended() -> bool:
        try:
            return "zombie" in (child / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    await wait_until(has_ended, what="what it has started ends with it")


async def test_a_script_sees_no_settings_of_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_REGISTRY_TOKEN", "s3cret")
    monkeypatch.setenv("SHOP", "open")
    verdict = await ScriptRunner().run(Probe(args=("/usr/bin/env",)), 100_000)
    assert "s3cret" not in verdict.output
    assert "SHOP=open" in verdict.output
