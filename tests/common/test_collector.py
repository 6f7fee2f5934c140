"""The collector of a process that holds much: calm, but not blind."""

import gc
import weakref
from collections.abc import Generator
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest
from toska_common.collector import YOUNG, keep_collector_calm
from toska_tests.waiting import wait_until


@pytest.fixture(autouse=True)
def restored() -> Generator[None]:
    """The collector belongs to the whole process, so it is put back."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class _Cycle:
    def __init__(self) -> None:
        self.itself = self


async def test_what_was_there_is_never_looked_at_and_young_cycles_still_go() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(keep_collector_calm)
        await anyio.lowlevel.checkpoint()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] == YOUNG
        gone = weakref.ref(_Cycle())
        kept = [[] for _ in range(2 * YOUNG)]  # pyright: ignore[reportUnknownVariableType] - only their number matters
        assert gone() is None
        assert kept
        group.cancel_scope.cancel()


async def test_full_collections_come_by_the_clock_and_not_by_growth() -> None:
    full: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            full.append(info["collected"])

    async with anyio.create_task_group() as group:
        gc.callbacks.append(note)
        try:
            group.start_soon(keep_collector_calm, timedelta(milliseconds=1))
            await wait_until(lambda: len(full) >= 3, what="three full collections")
        finally:
            gc.callbacks.remove(note)
            group.cancel_scope.cancel()
