"""Allowances: GCRA against its definition, in bounded memory, and exact among processes."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toska_common.balancing.base import hash_of
from toska_gateway.shared_memory import open_shared_memory
from toska_gateway.worker.allowances import ENTRY_BYTES, WAYS, Allowances, size_of

KEY = hash_of(b"somebody") | 1 << 63


def key(number: int) -> int:
    return hash_of(b"%d" % number) | 1 << 63


@pytest.fixture
def shared() -> Iterator[int]:
    """Memory for 1,024 keys that processes can have in common."""
    descriptor = open_shared_memory(size_of(1024))
    yield descriptor
    os.close(descriptor)


def test_a_burst_is_served_and_the_next_has_to_wait_one_interval() -> None:
    table = Allowances(64)
    slacks = [table.take(KEY, 0.1, 0.5, now=100.0) for _ in range(6)]
    assert [round(slack / 0.1) for slack in slacks[:5]] == [4, 3, 2, 1, 0]
    assert slacks[5] == pytest.approx(-0.1)
    assert table.take(KEY, 0.1, 0.5, now=100.05) == pytest.approx(-0.05)
    assert table.take(KEY, 0.1, 0.5, now=100.1) == pytest.approx(0.0)


def test_what_is_refused_costs_nothing() -> None:
    table = Allowances(64)
    table.take(KEY, 1.0, 1.0, now=0.0)
    for moment in range(9):
        assert table.take(KEY, 1.0, 1.0, now=moment / 10) < 0
    assert table.take(KEY, 1.0, 1.0, now=1.0) == pytest.approx(0.0)


def test_an_allowance_refills_to_the_burst_and_no_further() -> None:
    table = Allowances(64)
    served = sum(table.take(KEY, 0.1, 0.5, now=1000.0) >= 0 for _ in range(100))
    later = sum(table.take(KEY, 0.1, 0.5, now=9000.0) >= 0 for _ in range(100))
    assert (served, later) == (5, 5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 0.5)), min_size=1, max_size=80),
)
def test_no_window_ever_serves_more_than_burst_and_rate(rate: int, burst: int, steps: list[tuple[int, float]]) -> None:
    table = Allowances(4096)
    interval = 1 / rate
    served: dict[int, list[float]] = {}
    now = 50.0
    for who, pause in steps:
        now += pause
        if table.take(key(who), interval, burst * interval, now) >= 0:
            served.setdefault(who, []).append(now)
    for times in served.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= burst + (times[last] - times[first]) * rate + 1e-6


def test_keys_do_not_share() -> None:
    table = Allowances(4096)
    assert all(table.take(key(number), 1.0, 1.0, now=0.0) >= 0 for number in range(300))
    assert all(table.take(key(number), 1.0, 1.0, now=0.0) < 0 for number in range(300))


def test_a_full_table_serves_on_and_forgets_who_is_nearest_to_free() -> None:
    table = Allowances(WAYS)
    for number in range(WAYS):
        assert table.take(key(number), 1.0, 60.0, now=float(number)) >= 0
    assert table.take(key(99), 1.0, 60.0, now=0.5) >= 0
    assert table.crowded == 1
    assert table.take(key(1), 1.0, 1.0, now=0.5) < 0  # the others are still there


def test_a_key_whose_time_has_passed_makes_room_unnoticed() -> None:
    table = Allowances(WAYS)
    for number in range(1000):
        assert table.take(key(number), 1.0, 1.0, now=float(number)) >= 0
    assert table.crowded == 0


def test_many_more_keys_than_it_has_room_for_take_no_more_memory() -> None:
    table = Allowances(1 << 14)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    served = sum(table.take(key(number), 1.0, 3600.0, now=1.0) >= 0 for number in range(100_000))
    assert served == 100_000  # it errs towards serving
    assert table.crowded > 80_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * size_of(1 << 14) / 1024


def test_a_table_that_is_not_a_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Allowances(100)


TAKER = """
import json, sys
from toska_gateway.worker.allowances import Allowances
table = Allowances(1024, int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(sum(table.take(1 << 63, 1.0, 50000.0, 100.0) >= 0 for _ in range(40000))))
"""


def test_what_processes_admit_together_is_exact(shared: int) -> None:
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(shared)],
            pass_fds=[shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    admitted = [json.loads(taker.communicate(timeout=30)[0]) for taker in takers]
    assert sum(admitted) == 50_000
    assert os.pread(shared, ENTRY_BYTES, 0) != bytes(ENTRY_BYTES)


ENDLESS_TAKER = """
import sys
from toska_gateway.worker.allowances import Allowances
table = Allowances(1024, int(sys.argv[1]))
print("taking", flush=True)
while True:
    table.take(1 << 63, 1.0, 1e9, 100.0)
"""


def test_workers_killed_at_any_moment_leave_no_lock_and_no_broken_entry(shared: int) -> None:
    table = Allowances(1024, shared)
    taken = 0
    for _ in range(8):
        taker = subprocess.Popen(
            [sys.executable, "-c", ENDLESS_TAKER, str(shared)], pass_fds=[shared], stdout=subprocess.PIPE, text=True
        )
        assert taker.stdout is not None
        assert taker.stdout.readline() == "taking\n"
        for _ in range(500):  # beside it: nine of ten of its moments are inside a lock, or near one
            taken += table.take(1 << 63, 1.0, 1e9, now=100.0) >= 0
        taker.send_signal(signal.SIGKILL)
        taker.wait(timeout=10)
        taker.stdout.close()
        fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds any part of it
        fcntl.lockf(shared, fcntl.LOCK_UN)
    assert taken == 4000
    slack = table.take(1 << 63, 1.0, 1e9, now=100.0)
    assert slack == int(slack)  # every take was whole
    assert 1e9 - slack > 4000


HOLDER = """
import fcntl, signal, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 16384, 0)
print("locked", flush=True)
signal.pause()
"""


def test_a_worker_that_dies_with_a_lock_gives_it_back(shared: int) -> None:
    table = Allowances(1024, shared)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared)], pass_fds=[shared], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    assert table.take(KEY, 1.0, 2.0, now=0.0) >= 0  # it does not hang with whoever holds the lock
    assert table.contended == 1
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=10)
    holder.stdout.close()
    assert table.take(KEY, 1.0, 2.0, now=0.0) >= 0
    assert table.contended == 1
    fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
