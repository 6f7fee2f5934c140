"""The prober at work, on real sockets and with intervals of some milliseconds."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from toska_common.clock import SystemClock
from toska_common.contracts.discovery import Health
from toska_common.targets import TargetRules
from toska_discovery.check import CheckDefinition, CheckKind, Probe
from toska_discovery.errors import UnknownCheck
from toska_discovery.probing.prober import Prober
from toska_discovery.probing.runners import open_runners
from toska_discovery.probing.verdict import Verdict
from toska_tests.probed import CannedServer, answer, hang
from toska_tests.waiting import wait_until


@dataclass(slots=True)
class Verdicts:
    """Keeps the verdicts that are handed in; for `gone` checks it has no use."""

    taken: list[tuple[str, Health]] = field(default_factory=list[tuple[str, Health]])
    gone: set[str] = field(default_factory=set[str])

    def judge(self, check_id: str, status: Health, output: str) -> None:
        assert output
        if check_id in self.gone:
            raise UnknownCheck("gone", check_id=check_id)
        self.taken.append((check_id, status))

    def of(self, check_id: str) -> list[str]:
        return [status.value for found, status in self.taken if found == check_id]


@asynccontextmanager
async def probing(verdicts: Verdicts, *, at_a_time: int = 100) -> AsyncGenerator[Prober]:
    async with open_runners(TargetRules(), scripts=False) as runners, anyio.create_task_group() as group:
        prober = Prober(verdicts, runners, SystemClock(), at_a_time=at_a_time)
        group.start_soon(prober.run)
        yield prober
        group.cancel_scope.cancel()


def http_check(
    check_id: str, url: str, *, interval_s: float = 0.05, timeout_s: float = 5, enough: int = 0
) -> CheckDefinition:
    probe = Probe(
        target=url,
        interval_s=interval_s,
        timeout_s=timeout_s,
        success_before_passing=enough,
        failures_before_critical=enough,
    )
    return CheckDefinition(check_id, check_id, kind=CheckKind.HTTP, probe=probe)


async def test_a_check_is_probed_once_an_interval_until_it_goes(server: CannedServer) -> None:
    verdicts = Verdicts()
    server.answers["/"] = answer()
    async with probing(verdicts) as prober:
        started = time.monotonic()
        prober.follow({"c": http_check("c", f"{server.url}/", interval_s=0.1)})
        await wait_until(lambda: len(verdicts.taken) >= 5)
        assert time.monotonic() - started >= 0.4
        assert prober.checks == 1
        prober.follow({"c": None})
        assert prober.checks == 0
        prober.follow({"other": http_check("other", f"{server.url}/", interval_s=0.1)})
        before = len(verdicts.of("c"))
        await wait_until(
            lambda: len(verdicts.of("other")) >= 4, what="the time in which it would have been asked again"
        )
        assert len(verdicts.of("c")) == before


class Asked:
    """A runner whose answers come when they are told to."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Verdict]] = []

    async def run(self, _probe: Probe, _output_max_bytes: int) -> Verdict:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


@pytest.mark.parametrize("after", [None, "changed"])
async def test_a_check_that_goes_or_changes_as_its_answer_comes_has_no_verdict_by_it(after: str | None) -> None:
    """A task whose answer is there cannot be cancelled any more, and goes on; so nobody else's probes may suffer."""
    verdicts, runner = Verdicts(), Asked()
    async with anyio.create_task_group() as group:
        prober = Prober(verdicts, {CheckKind.HTTP: runner}, SystemClock(), at_a_time=100)
        group.start_soon(prober.run)
        prober.follow({"c": http_check("c", "http://test/")})
        await wait_until(lambda: len(runner.answers) == 1)
        runner.answers[0].set_result(Verdict(Health.PASSING, "well"))
        prober.follow({"c": None if after is None else http_check("c", f"http://{after}/")})
        prober.follow({"other": http_check("other", "http://test/")})
        await wait_until(lambda: len(runner.answers) == (2 if after is None else 3), what="the other's probe")
        assert verdicts.taken == []
        for answered in runner.answers[1:]:
            answered.set_result(Verdict(Health.PASSING, "well"))
        await wait_until(lambda: verdicts.of("other") == ["passing"])
        group.cancel_scope.cancel()


async def test_a_check_that_flaps_changes_its_verdict_only_after_enough_in_a_row(server: CannedServer) -> None:
    verdicts = Verdicts()
    turns = iter("gggbgbbggbbbbggbgggg")

    async def flap(stream: SocketStream) -> None:
        await stream.send(answer("200 OK" if next(turns, "g") == "g" else "500 Bad"))

    server.answers["/"] = flap
    async with probing(verdicts) as prober:
        check = http_check("c", f"{server.url}/", interval_s=0.01, enough=3)
        prober.follow({"c": check})
        await wait_until(lambda: len(server.requests) >= 22)
    changes = [
        status for number, status in enumerate(verdicts.of("c")) if not number or verdicts.of("c")[number - 1] != status
    ]
    assert changes == ["passing", "critical", "passing"]


async def test_hanging_checks_hold_up_no_others_and_no_more_are_under_way_than_allowed(server: CannedServer) -> None:
    verdicts = Verdicts()
    server.answers["/hang"] = hang
    server.answers["/"] = answer()
    async with probing(verdicts, at_a_time=8) as prober:
        prober.follow(
            {f"hang{number}": http_check(f"hang{number}", f"{server.url}/hang", timeout_s=0.3) for number in range(7)}
        )
        await wait_until(lambda: prober.under_way == 7)
        prober.follow({"well": http_check("well", f"{server.url}/")})
        await wait_until(lambda: len(verdicts.of("well")) >= 3)
        prober.follow(
            {f"more{number}": http_check(f"more{number}", f"{server.url}/hang", timeout_s=0.3) for number in range(7)}
        )

        def all_have_hung() -> bool:
            assert prober.under_way <= 8
            return all("critical" in verdicts.of(f"more{number}") for number in range(7))

        await wait_until(all_have_hung)


async def test_a_check_that_changes_is_asked_anew_and_its_old_probe_is_given_up(server: CannedServer) -> None:
    verdicts = Verdicts()
    hung_up = anyio.Event()

    async def wait_for_the_end(stream: SocketStream) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await stream.receive()
        hung_up.set()

    server.answers["/hang"] = wait_for_the_end
    server.answers["/"] = answer()
    async with probing(verdicts) as prober:
        prober.follow({"c": http_check("c", f"{server.url}/hang", timeout_s=60)})
        await wait_until(lambda: server.paths() == ["/hang"])
        prober.follow({"c": http_check("c", f"{server.url}/")})
        with anyio.fail_after(20):
            await hung_up.wait()
        await wait_until(lambda: len(verdicts.of("c")) >= 2)
        assert set(verdicts.of("c")) == {"passing"}
        assert (prober.checks, prober.under_way <= 1) == (1, True)


async def test_a_check_that_nobody_knows_any_more_is_dropped(server: CannedServer) -> None:
    verdicts = Verdicts(gone={"c"})
    server.answers["/"] = answer()
    async with probing(verdicts) as prober:
        prober.follow({"c": http_check("c", f"{server.url}/")})
        await wait_until(lambda: prober.checks == 0)


async def test_a_script_that_was_registered_while_scripts_were_on_turns_critical_when_they_are_off() -> None:
    verdicts = Verdicts()
    async with probing(verdicts) as prober:
        probe = Probe(args=("/bin/true",), interval_s=0.05)
        prober.follow({"c": CheckDefinition("c", "c", kind=CheckKind.SCRIPT, probe=probe)})
        await wait_until(lambda: verdicts.of("c")[:1] == ["critical"])


async def test_thousands_of_checks_are_all_probed_and_cost_no_task_while_they_wait(server: CannedServer) -> None:
    verdicts = Verdicts()
    async with probing(verdicts) as prober:
        tasks = len(anyio.get_running_tasks())
        probe = Probe(target=f"127.0.0.1:{server.port}", interval_s=3600)
        prober.follow({f"c{n}": CheckDefinition(f"c{n}", "c", kind=CheckKind.TCP, probe=probe) for n in range(5000)})
        assert prober.checks == 5000
        await anyio.lowlevel.checkpoint()
        assert len(anyio.get_running_tasks()) - tasks < 20
