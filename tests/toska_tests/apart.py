"""The mesh's services as processes of their own, so that a test can end one and keep the others."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from toska_tests.clients import http_client
from toska_tests.meshes import START_WITHIN_S, TOSKA, answers, surroundings
from toska_tests.ports import free_ports
from toska_tests.programs import Program, running
from toska_tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class MeshApart:
    """Where each service of a mesh listens, and how to run it with `toska run`."""

    folder: Path
    first: int = field(default_factory=lambda: free_ports(5))

    @property
    def gateway(self) -> str:
        """Base URL of the data listener."""
        return self._url(0)

    @property
    def gateway_admin(self) -> str:
        """Base URL of the gateway's admin API."""
        return self._url(1)

    @property
    def discovery(self) -> str:
        """Base URL of discovery's REST API."""
        return self._url(2)

    @property
    def registry(self) -> str:
        """Base URL of the Consul API."""
        return self._url(3)

    @property
    def router(self) -> str:
        """Base URL of the router."""
        return self._url(4)

    @property
    def environment(self) -> dict[str, str]:
        """What tells each service where the others are."""
        port = {name: str(self.first + offset) for offset, name in enumerate(("GW", "ADMIN", "DISC", "REG", "ROUTER"))}
        return {
            **surroundings(self.folder),
            "TOSKA_HOME": str(self.folder / ".toska"),
            "TOSKA_GATEWAY_PORT": port["GW"],
            "TOSKA_GATEWAY_ADMIN_PORT": port["ADMIN"],
            "TOSKA_GATEWAY_WORKERS": "1",
            "TOSKA_GATEWAY_ROUTER_URL": self.router,
            "TOSKA_GATEWAY_DISCOVERY_URL": self.discovery,
            "TOSKA_GATEWAY_EMBEDDED_REGISTRY_URL": self.registry,
            "TOSKA_DISCOVERY_PORT": port["DISC"],
            "TOSKA_DISCOVERY_CONSUL_PORT": port["REG"],
            "TOSKA_DISCOVERY_DNS_PORT": "-1",
            "TOSKA_DISCOVERY_GRPC_PORT": "-1",
            "TOSKA_ROUTER_PORT": port["ROUTER"],
            "TOSKA_ROUTER_EMBEDDED_REGISTRY_URL": self.registry,
        }

    @contextmanager
    def service(self, name: str) -> Generator[Program]:
        """`toska run NAME` until the block ends."""
        with running([TOSKA, "run", name], self.folder, environment=self.environment) as program:
            yield program

    @contextmanager
    def app(self, target: str) -> Generator[Program]:
        """`toska run module:app` of the folder, joined to this mesh."""
        environment = {
            **self.environment,
            "TOSKA_REGISTRY_URL": self.registry,
            "TOSKA_JOIN_TOKEN_FILE": str(self.folder / ".toska" / "join.token"),
            "TOSKA_EXPOSE": "true",
        }
        with running([TOSKA, "run", target], self.folder, environment=environment) as program:
            yield program

    async def ready(self, name: str) -> None:
        """Wait until a service that was started says that it is ready."""
        url = {"discovery": self.discovery, "router": self.router, "gateway": self.gateway_admin}[name]
        await wait_until(lambda: answers(f"{url}/health/ready"), within=START_WITHIN_S, what=f"{name} is ready")

    async def passing(self, service: str) -> int:
        """How many instances of a service the registry calls healthy."""
        async with http_client(timeout=10) as client:
            try:
                answer = await client.get(f"{self.registry}/v1/health/service/{service}?passing")
            except httpx.HTTPError:
                return 0
            return len(answer.json())

    def _url(self, offset: int) -> str:
        return f"http://127.0.0.1:{self.first + offset}"
