"""Both outboxes that are compared do the same work: what is committed comes to the handler, once, and is gone."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from toska_tests.event_carriers import LogHost, log_host
from toska_tests.waiting import PATIENT_S, wait_until

from benchmarks.outbox.outboxes import Connect, Contestant, Handled, ours, usual_over_log
from benchmarks.outbox.stores import SQLITE, opened


@pytest.fixture
async def event_log(tmp_path: Path) -> AsyncGenerator[LogHost]:
    async with log_host(tmp_path) as host:
        yield host


@pytest.mark.parametrize("contestant", [ours, usual_over_log])
async def test_all_that_is_committed_is_handled_and_then_gone(
    contestant: Callable[[AsyncEngine, Connect, Handled], AbstractAsyncContextManager[Contestant]], event_log: LogHost
) -> None:
    handled: list[float] = []
    wanted = [float(number) for number in range(20)]
    async with (
        opened(SQLITE, None) as engine,
        contestant(engine, event_log.connect, handled.append) as outbox,
        anyio.create_task_group() as group,
    ):
        await outbox.write(wanted[:10])
        await outbox.write(wanted[10:])
        assert not await outbox.is_empty()
        group.start_soon(outbox.run)
        await wait_until(lambda: len(handled) == 20, within=PATIENT_S)
        await wait_until(outbox.is_empty, within=PATIENT_S)
        group.cancel_scope.cancel()
    assert sorted(handled) == wanted
