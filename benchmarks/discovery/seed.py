"""Filling a registry before it is measured."""

import asyncio
from collections.abc import Iterator

import aiohttp
import anyio

from benchmarks import BenchError
from benchmarks.discovery.content import (
    INSTANCES,
    SERVICES,
    agent_registrations,
    lookup_path,
    other_registrations,
)

_WRITERS = 32
_READY_S = 30.0
_CONVERGED_S = 60.0


async def seed(port: int, token: str, *, through_catalog: bool) -> None:
    """Register everything, and return once lookups show it.

    Raises:
        BenchError: A registration was refused, or the lookups never became complete.
    """
    headers = {"X-Consul-Token": token} if token else {}
    agent, catalog = "/v1/agent/service/register", "/v1/catalog/register"
    others = ((catalog, second) if through_catalog else (agent, first) for first, second in other_registrations())
    own = ((agent, body) for body in agent_registrations())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        await _wait_for_leader(session)
        for bodies in (others, own):
            async with anyio.create_task_group() as tasks:
                for _ in range(_WRITERS):
                    tasks.start_soon(_write, session, bodies)
        await _wait_until_complete(session)


async def _write(session: aiohttp.ClientSession, requests: Iterator[tuple[str, str]]) -> None:
    for path, body in requests:
        async with session.put(path, data=body, headers={"Content-Type": "application/json"}) as answer:
            if answer.status != 200:
                raise BenchError(f"{path} answers {answer.status}: {(await answer.text())[:200]}")


async def _wait_for_leader(session: aiohttp.ClientSession) -> None:
    with anyio.move_on_after(_READY_S):
        while True:
            try:
                async with session.get("/v1/status/leader") as answer:
                    if answer.status == 200 and await answer.json():
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise BenchError("the registry had no leader in time")


async def _wait_until_complete(session: aiohttp.ClientSession) -> None:
    seen: list[int] = []
    with anyio.move_on_after(_CONVERGED_S):
        while True:
            seen = []
            for service in (0, 99, SERVICES - 1):
                async with session.get(lookup_path(f"service-{service:04d}")) as answer:
                    seen.append(len(await answer.json()))
            if seen == [INSTANCES] * 3:
                return
            await asyncio.sleep(0.2)
    raise BenchError(f"lookups show {seen} instances, not {INSTANCES} each")
