"""A registry of a test's own, and apps that join it, served as users serve theirs."""

import contextlib
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from toska_tests.clients import http_client
from toska_tests.ports import free_port, free_ports
from toska_tests.programs import Program, running
from toska_tests.waiting import PATIENT_S, wait_until

UVICORN = Path(sys.executable).with_name("uvicorn")
FASTAPI = Path(sys.executable).with_name("fastapi")
APPS = Path(__file__).with_name("apps")
"""A folder of its own: it goes on the import path, where a neighbour called `requests.py` would hide the real one."""


@dataclass
class Registry:
    """Discovery as a process of its own; it can be stopped and started again on the same port."""

    folder: Path
    first_port: int = field(default_factory=lambda: free_ports(2))
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def url(self) -> str:
        """Of the Consul API."""
        return f"http://127.0.0.1:{self.first_port}"

    @property
    def rest(self) -> str:
        """Of discovery's REST API."""
        return f"http://127.0.0.1:{self.first_port + 1}"

    @property
    def home(self) -> Path:
        """Its state folder."""
        return self.folder / "home"

    @property
    def join_token(self) -> str:
        """The credential to register with."""
        return (self.home / "join.token").read_text().strip()

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        environment = {
            "TOSKA_HOME": str(self.home),
            "TOSKA_DISCOVERY_CONSUL_PORT": str(self.first_port),
            "TOSKA_DISCOVERY_PORT": str(self.first_port + 1),
            "TOSKA_DISCOVERY_DNS_PORT": "-1",
            "TOSKA_DISCOVERY_GRPC_PORT": "-1",
            "TOSKA_REGISTRY_URL": "",
        }
        command = [sys.executable, "-m", "toska_discovery"]
        self._running.enter_context(running(command, self.folder, environment=environment))
        async with http_client() as client:
            await wait_until(lambda: _answers(client, f"{self.url}/v1/status/leader"), what="discovery")

    def stop(self) -> None:
        """Kill it."""
        self._running.close()

    async def instances(self, service: str) -> list[dict[str, Any]]:
        """The registered instances of a service that are passing, as `health/service` has them."""
        async with http_client() as client:
            return (await client.get(f"{self.url}/v1/health/service/{service}?passing")).json()

    async def get_json(self, url: str) -> Any:
        """What a GET of `url` answers."""
        async with http_client() as client:
            return (await client.get(url)).raise_for_status().json()

    async def get_index(self, url: str) -> str:
        """The index of what a GET of `url` answers."""
        async with http_client() as client:
            return (await client.get(url)).headers["x-consul-index"]

    async def wait_for(self, service: str, count: int, *, within: float = PATIENT_S) -> list[dict[str, Any]]:
        """Wait until `service` has `count` passing instances."""
        found: list[dict[str, Any]] = []

        async def counted() -> bool:
            nonlocal found
            found = await self.instances(service)
            return len(found) == count

        await wait_until(counted, within=within, what=f"{count} instances of {service}")
        return found


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await client.get(url)).status_code == 200
    return False


@dataclass(frozen=True, slots=True)
class Served:
    """An app that a server serves on `port`."""

    program: Program
    port: int

    @property
    def url(self) -> str:
        """Where."""
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """One GET on a connection of its own."""
        async with http_client() as client:
            return await client.get(self.url + path, **options)


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a test serves apps: a folder, and the registry that they join."""

    folder: Path
    registry: Registry

    @property
    def environment(self) -> dict[str, str]:
        """What tells an app where it belongs, and keeps this machine's own mesh out of it."""
        return {
            "TOSKA_REGISTRY_URL": self.registry.url,
            "TOSKA_JOIN_TOKEN_FILE": str(self.registry.home / "join.token"),
            "TOSKA_HOME": str(self.folder / "no-mesh-here"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_RUNTIME_DIR": "",
            "PYTHONPATH": str(APPS),
        }

    @contextlib.contextmanager
    def serve(
        self,
        name: str,
        *arguments: str,
        command: Sequence[str | Path] = (UVICORN, "shop_app:app"),
        port: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> Generator[Served]:
        """Serve the shop under a name: `with stage.serve("shop-1", "--workers", "2") as shop:`."""
        port = free_port() if port is None else port
        variables = {**self.environment, "SHOP_NAME": name, **(environment or {})}
        with running([*command, "--port", str(port), *arguments], self.folder, environment=variables) as program:
            yield Served(program, port)
