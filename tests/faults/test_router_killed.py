"""The router killed at any step of a change: a gateway has all of it or nothing, and gets there in the end.

Each change is one of forty routes at once. `TOSKA_ROUTER_KILLS` says how often the router is killed: a few times here,
hundreds by hand.
"""

import os
import random
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import httpx
from toska_tests.control import ControlMesh, control_mesh
from toska_tests.programs import Program, running
from toska_tests.waiting import wait_until

ROUTES = 40
KILLS = int(os.environ.get("TOSKA_ROUTER_KILLS", "2"))
LATEST_KILL_S = 0.12
"""After a change was written; by then it has arrived as a rule, and half of the time the kill comes before."""


def write(file: Path, generation: int) -> None:
    """Have all routes say the generation, from one moment to the next."""
    lines = [
        f"  - {{name: r{number}, match: {{path: /r{number}}}, respond: {{body: '{generation}'}}}}"
        for number in range(ROUTES)
    ]
    new = file.with_suffix(".new")
    new.write_text("\n".join(["routes:", *lines]))
    new.replace(file)


@contextmanager
def router(mesh: ControlMesh, file: Path) -> Generator[Program]:
    environment = {
        "TOSKA_HOME": str(mesh.home),
        "TOSKA_ROUTER_PORT": str(mesh.first + 4),
        "TOSKA_REGISTRY_URL": mesh.registry,
        "TOSKA_ROUTER_ROUTES": str(file),
        "TOSKA_ROUTER_ROUTES_INTERVAL": "20ms",
    }
    with running([sys.executable, "-m", "toska_router"], mesh.home, environment=environment) as program:
        yield program


async def serves(client: httpx.AsyncClient, generation: int) -> bool:
    return (await client.get("/r0")).text == str(generation)


async def watch(client: httpx.AsyncClient, broken: list[tuple[int, int]]) -> None:
    """Read one route after the other, in no order: what they say never goes back, if each change comes whole."""
    choice, newest = random.Random(7), 0
    while True:
        said = int((await client.get(f"/r{choice.randrange(ROUTES)}")).text)
        if said < newest:
            broken.append((newest, said))
        newest = max(newest, said)


async def test_a_router_that_is_killed_at_any_step_leaves_no_gateway_with_half_a_change(home: Path) -> None:
    moments = random.Random(6)
    file, generation, broken = home / "mesh.yaml", 1, list[tuple[int, int]]()
    write(file, generation)
    async with (
        control_mesh(home, "discovery", "gateway") as mesh,
        httpx.AsyncClient(base_url=mesh.data) as reader,
        httpx.AsyncClient(base_url=mesh.data) as client,
        anyio.create_task_group() as group,
    ):
        for kill in range(KILLS + 1):
            with router(mesh, file) as program:
                await wait_until(partial(serves, client, generation), within=60, what="the newest change is served")
                if kill == 0:
                    group.start_soon(watch, reader, broken)
                if kill == KILLS:
                    await wait_until(partial(is_current, mesh), within=60, what="the router knows that")
                    break
                generation += 1
                write(file, generation)
                await anyio.sleep(moments.uniform(0, LATEST_KILL_S))  # the moment is what varies
                program.send(signal.SIGKILL)
                assert await program.exit_code() == -signal.SIGKILL
        group.cancel_scope.cancel()
    assert not broken


async def is_current(mesh: ControlMesh) -> bool:
    try:
        version = (await mesh.get(f"{mesh.router}/api/v1/status")).json()["version"]
        gateways = (await mesh.get(f"{mesh.router}/api/v1/gateways")).json()
    except httpx.TransportError:  # it has only just been started; the gateway served the newest change all the while
        return False
    return [(gateway["up_to_date"], gateway["version"]) for gateway in gateways] == [(True, version)]
