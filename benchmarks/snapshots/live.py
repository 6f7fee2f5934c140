"""A change of one route, from the operator's request to the first answer that a client gets by it.

A real discovery, router and gateway, the last with one worker, and a hundred pollers that wait as gateways do.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks import BenchError
from benchmarks.figures import Record
from benchmarks.machine import Cores
from benchmarks.processes import Running, free_ports, running

POLLERS = 100
_PATIENCE_S = 180.0
_SETTLE_S = 1.0


class Live(Record):
    """Milliseconds from sending a change: until it is answered, all pollers have it, and the gateway serves it."""

    routes: int
    changes: int
    answered_p50_ms: float
    polled_p50_ms: float
    polled_p99_ms: float
    served_p50_ms: float
    served_p99_ms: float
    router_mib: float
    gateway_mib: float


@dataclass(frozen=True, slots=True)
class _Mesh:
    router: Running
    gateway: Running
    router_url: str
    data_url: str
    token: str


async def measure(folder: Path, size: int, changes: int, cores: Cores) -> Live:
    """Change one of `size` routes, again and again.

    Raises:
        BenchError: A part does not come up, or a change is not served.
    """
    with _mesh(folder, size, cores) as mesh:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await _until_served(session, f"{mesh.data_url}/p{size - 1}", str(size - 1))
            await _put(session, mesh, "0")
            await _until_served(session, f"{mesh.data_url}/changing", "0")
            took = [await _change(session, mesh, turn) for turn in range(1, changes + 1)]
        answered, polled, served = ([one[part] for one in took] for part in range(3))
        return Live(
            routes=size,
            changes=changes,
            answered_p50_ms=_at(answered, 0.5),
            polled_p50_ms=_at(polled, 0.5),
            polled_p99_ms=_at(polled, 0.99),
            served_p50_ms=_at(served, 0.5),
            served_p99_ms=_at(served, 0.99),
            router_mib=mesh.router.pss_bytes() / 2**20,
            gateway_mib=mesh.gateway.pss_bytes() / 2**20,
        )


async def _change(session: aiohttp.ClientSession, mesh: _Mesh, turn: int) -> tuple[float, float, float]:
    async with _pollers(session, mesh) as news:
        began = time.monotonic()
        served = asyncio.ensure_future(_until_served(session, f"{mesh.data_url}/changing", str(turn)))
        await _put(session, mesh, str(turn))
        answered = time.monotonic()
        polled = max(await asyncio.gather(*news))
        return answered - began, polled - began, await served - began


@asynccontextmanager
async def _pollers(session: aiohttp.ClientSession, mesh: _Mesh) -> AsyncGenerator[list[asyncio.Task[float]]]:
    """A hundred that have the newest snapshot and wait for the next; what they return is when they had it."""
    async with session.get(f"{mesh.router_url}/api/v1/status") as answer:
        version = (await answer.json())["version"]

    async def poll(number: int) -> float:
        body = {"gateway": f"poller-{number}", "version": version, "wait_seconds": 60}
        async with session.post(f"{mesh.router_url}/api/v1/snapshot", json=body) as answer:
            await answer.read()
            return time.monotonic()

    news = [asyncio.ensure_future(poll(number)) for number in range(POLLERS)]
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        async with session.get(f"{mesh.router_url}/metrics") as answer:
            if f"toska_router_polls_waiting {float(POLLERS + 1)}" in await answer.text():
                break
        await asyncio.sleep(0.02)
    else:
        raise BenchError("the pollers do not come to wait")
    yield news


async def _put(session: aiohttp.ClientSession, mesh: _Mesh, body: str) -> None:
    url = f"{mesh.router_url}/api/v1/routes/changing"
    route = {"match": {"path": "/changing"}, "respond": {"body": body}}
    async with session.put(url, json=route, headers={"authorization": f"Bearer {mesh.token}"}) as answer:
        if answer.status not in (200, 201):
            raise BenchError(f"the router answers a change with {answer.status}: {await answer.text()}")


async def _until_served(session: aiohttp.ClientSession, url: str, body: str) -> float:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            async with session.get(url) as answer:
                if await answer.text() == body:
                    return time.monotonic()
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.0005)
    raise BenchError(f"the gateway does not serve {url}")


@contextmanager
def _mesh(folder: Path, size: int, cores: Cores) -> Generator[_Mesh]:
    folder.mkdir()
    file = folder / "routes.yaml"
    routes = [{"name": f"r{n}", "match": {"path_prefix": f"/p{n}"}, "respond": {"body": str(n)}} for n in range(size)]
    file.write_text("routes:\n" + "".join(f"- {json.dumps(route)}\n" for route in routes))
    rest, consul, router, data, admin = free_ports(5)
    environment = {
        "TOSKA_HOME": str(folder / "home"),
        "TOSKA_DISCOVERY_PORT": str(rest),
        "TOSKA_DISCOVERY_CONSUL_PORT": str(consul),
        "TOSKA_DISCOVERY_DNS_PORT": "-1",
        "TOSKA_DISCOVERY_GRPC_PORT": "-1",
        "TOSKA_ROUTER_PORT": str(router),
        "TOSKA_ROUTER_ROUTES": str(file),
        "TOSKA_ROUTER_XDS": "false",
        "TOSKA_GATEWAY_PORT": str(data),
        "TOSKA_GATEWAY_ADMIN_PORT": str(admin),
        "TOSKA_GATEWAY_WORKERS": "1",
        "TOSKA_GATEWAY_ROUTER_URL": f"http://127.0.0.1:{router}",
        "TOSKA_GATEWAY_DISCOVERY_URL": f"http://127.0.0.1:{rest}",
    }
    with ExitStack() as stack:

        def start(name: str, **more: str) -> Running:
            command = [sys.executable, "-m", f"toska_{name}"]
            part = running(name, command, folder=folder, cores=[cores.measured], environment=environment | more)
            return stack.enter_context(part)

        start("discovery")
        registry = f"http://127.0.0.1:{consul}"
        router_process, gateway = (start(name, TOSKA_REGISTRY_URL=registry) for name in ("router", "gateway"))
        token = folder / "home" / "admin.token"
        deadline = time.monotonic() + _PATIENCE_S
        while not token.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(_SETTLE_S)
        for process in (router_process, gateway):
            process.check_alive()
        yield _Mesh(
            router_process,
            gateway,
            f"http://127.0.0.1:{router}",
            f"http://127.0.0.1:{data}",
            token.read_text().strip(),
        )


def _at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
