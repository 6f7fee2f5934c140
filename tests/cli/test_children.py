"""The nursery: children that come back, and that end with whoever asked for them."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from toska_tests.programs import Program, alive, running
from toska_tests.waiting import wait_until

_HOST = """
import json, os, signal, sys, time
from toska_cli.children import ChildSpec, fork_nursery

def live(spec):
    if spec.environment.get("STUBBORN"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        time.sleep(60)

nursery = fork_nursery(live)
environment = json.loads(sys.argv[1])
nursery.start([ChildSpec(f"c-{n}", "c", "c:app", ".", "127.0.0.1", 1, ".", environment) for n in (1, 2)])
while chunk := nursery.control.recv(4096):
    sys.stdout.write(chunk.decode())
    sys.stdout.flush()
"""


class _Family:
    """A host with a nursery and two children, seen from outside."""

    def __init__(self, host: Program) -> None:
        self.host = host

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.host.stdout.splitlines()]

    def pids(self, event: str) -> list[int]:
        return [item["pid"] for item in self.events() if item["event"] == event]

    async def both_started(self) -> list[int]:
        await wait_until(lambda: len(self.pids("started")) == 2, what="two children")
        return self.pids("started")


@pytest.fixture
def family(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Family]:
    environment = getattr(request, "param", {})
    with running([sys.executable, "-c", _HOST, json.dumps(environment)], tmp_path) as host:
        yield _Family(host)


async def test_a_killed_child_is_replaced_and_its_sibling_stays(family: _Family) -> None:
    first, second = await family.both_started()
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: len(family.pids("started")) == 3, what="a third life")
    ended = next(event for event in family.events() if event["event"] == "ended")
    assert (ended["child"], ended["pid"], ended["status"]) == ("c-1", first, -signal.SIGKILL)
    assert psutil.pid_exists(second)


async def test_children_end_when_the_host_is_killed(family: _Family) -> None:
    await family.both_started()
    everyone = family.host.descendants()
    assert len(everyone) == 3
    family.host.send(signal.SIGKILL)
    await wait_until(lambda: not alive(everyone), what="nobody left")


@pytest.mark.parametrize("family", [{"STUBBORN": "1"}], indirect=True)
async def test_children_that_ignore_the_signal_are_killed_after_a_grace(family: _Family) -> None:
    await family.both_started()
    everyone = family.host.descendants()
    family.host.send(signal.SIGKILL)
    await wait_until(lambda: not alive(everyone), what="nobody left")


async def test_children_end_when_the_nursery_is_killed(family: _Family) -> None:
    await family.both_started()
    everyone = family.host.descendants()
    (nursery,) = [process for process in everyone if process.ppid() == family.host.pid]
    nursery.kill()
    await wait_until(lambda: not alive(everyone), what="nobody left")


async def test_ctrl_c_on_the_terminal_is_left_to_the_host(family: _Family) -> None:
    await family.both_started()
    everyone = family.host.descendants()
    assert all(os.getpgid(process.pid) != family.host.pid for process in everyone)
