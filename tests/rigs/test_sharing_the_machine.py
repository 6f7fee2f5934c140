"""Several workers test beside one another: each has ports of its own, and a test that is to be alone is."""

from pathlib import Path
from threading import Event, Thread

import pytest
from toska_tests.alone import Turns
from toska_tests.ports import share_of
from toska_tests.waiting import PATIENT_S

Locks = tuple[Path, Path]


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    lock, door = tmp_path / "lock", tmp_path / "door"
    lock.touch()
    door.touch()
    return lock, door


class Worker:
    """Somebody in a thread who waits for a turn, and holds it until told to end."""

    def __init__(self, locks: Locks, *, alone: bool) -> None:
        self._turns = Turns(*locks)
        self._alone = alone
        self._has_turn, self._may_end = Event(), Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._turns.turn(alone=self._alone):
            self._has_turn.set()
            self._may_end.wait()

    def tests(self, within: float = PATIENT_S) -> bool:
        """Whether its turn comes."""
        return self._has_turn.wait(within)

    def end(self) -> None:
        """Let it end, and wait until it has."""
        self._may_end.set()
        self._thread.join(PATIENT_S)
        assert not self._thread.is_alive()
        self._turns.close()


def test_tests_that_need_not_be_alone_run_beside_one_another(locks: Locks) -> None:
    first, second = (Worker(locks, alone=False) for _ in range(2))
    assert first.tests()
    assert second.tests()
    second.end()
    first.end()


@pytest.mark.parametrize(("alone", "other"), [(True, False), (False, True), (True, True)])
def test_a_test_that_is_to_be_alone_is(locks: Locks, alone: bool, other: bool) -> None:
    first = Worker(locks, alone=alone)
    assert first.tests()
    second = Worker(locks, alone=other)
    assert not second.tests(within=0.05)
    first.end()
    assert second.tests()
    second.end()


def test_who_waits_to_be_alone_is_not_kept_waiting_by_those_who_come_later(locks: Locks) -> None:
    first = Worker(locks, alone=False)
    assert first.tests()
    alone = Worker(locks, alone=True)
    assert not alone.tests(within=0.05)
    late = Worker(locks, alone=False)
    assert not late.tests(within=0.05)
    first.end()
    assert alone.tests()
    assert not late.tests(within=0.05)
    alone.end()
    assert late.tests()
    late.end()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_each_worker_has_ports_of_its_own(workers: int) -> None:
    ports = range(20000, 32000)
    shares = [share_of(ports, worker, workers) for worker in range(workers)]
    given = [port for share in shares for port in share]
    assert len(set(given)) == len(given)
    assert set(given) <= set(ports)
    assert len(given) > len(ports) - workers
