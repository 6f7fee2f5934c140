"""Watches of a registry that are given up just as their answer comes."""

import asyncio
from contextlib import aclosing

import anyio
import pytest
from structlog.testing import capture_logs
from toska_common.clients.consul_watch import watch
from toska_common.errors import MeshError, UpstreamUnavailable
from toska_tests.waiting import wait_until


class Registry:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[tuple[str, int]]] = []

    async def query(self, *, index: int) -> tuple[str, int]:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_watch_that_is_cancelled_as_its_answer_comes_tells_nothing_more(fails: bool) -> None:
    registry, found = Registry(), list[str]()
    outages: list[MeshError | None] = []

    async def follow() -> None:
        with scope:
            async with aclosing(watch("orders", registry.query, outages.append)) as states:
                async for state in states:
                    found.append(state)

    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            group.start_soon(follow)
            await wait_until(lambda: len(registry.asked) == 1)
            registry.asked[0].set_result(("one", 1))
            await wait_until(lambda: len(registry.asked) == 2)
            if fails:
                registry.asked[1].set_exception(UpstreamUnavailable("it stops"))
            else:
                registry.asked[1].set_result(("two", 2))
            scope.cancel()
    assert found == ["one"]
    assert (outages, logs) == ([], [])
