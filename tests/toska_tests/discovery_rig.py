"""Discovery for tests: in the test's own loop on free ports, or as a process; and bare talk to a Consul API."""

import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
from toska_common.credentials import Credentials
from toska_common.server import Service, bind, serve
from toska_discovery.app import CONSUL, REST, create_service
from toska_discovery.settings import Settings

from toska_tests.clients import http_client
from toska_tests.ports import free_ports
from toska_tests.programs import Program, running
from toska_tests.waiting import wait_until

SWEEP_INTERVAL = "20ms"
"""Short, so that a lease of some 100 ms lapses when a test expects it."""


@dataclass(frozen=True, slots=True)
class RunningDiscovery:
    """A discovery that answers."""

    service: Service
    settings: Settings
    credentials: Credentials

    @property
    def rest(self) -> str:
        """Base URL of the REST API."""
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def consul(self) -> str:
        """Base URL of the Consul HTTP API."""
        return f"http://127.0.0.1:{self.settings.consul_port}"

    def bearer(self, access: str = "admin") -> dict[str, str]:
        """Headers of a bearer of that token."""
        return {"authorization": f"Bearer {getattr(self.credentials, access)}"}


@asynccontextmanager
async def discovery_in(home: Path, **options: Any) -> AsyncGenerator[RunningDiscovery]:
    """Run discovery with its state in `home` until the block ends."""
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(bind(options.get("host", "127.0.0.1"), 0)) for name in (REST, CONSUL)}
        chosen: dict[str, Any] = {"sweep_interval": SWEEP_INTERVAL, "dns_port": -1, "grpc_port": -1, **options}
        chosen["port"], chosen["consul_port"] = (sockets[name].getsockname()[1] for name in (REST, CONSUL))
        settings = Settings(home=home, **chosen)
        service = create_service(settings)
        async with anyio.create_task_group() as group:
            await group.start(partial(serve, service, sockets))
            yield RunningDiscovery(service, settings, settings.credentials())
            group.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class DiscoveryProcess:
    """`python -m toska_discovery`, started."""

    program: Program
    home: Path
    port: int

    @property
    def rest(self) -> str:
        """Base URL of the REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def consul(self) -> str:
        """Base URL of the Consul HTTP API."""
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def dns_port(self) -> int:
        """Where it answers in DNS, unless its port was chosen for it."""
        return self.port + 2

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.home / "admin.token").read_text().strip()

    async def wait_until_ready(self) -> None:
        """Wait until it is ready, and fail with its log if it ended."""
        async with http_client() as client:

            async def is_ready() -> bool:
                assert self.program.returncode is None, self.program.stderr
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get(f"{self.rest}/health/ready")).status_code == 200
                return False

            await wait_until(is_ready, what="discovery is ready")


@contextlib.contextmanager
def discovery_process(folder: Path, port: int | None = None, **environment: str) -> Generator[DiscoveryProcess]:
    """Run discovery as a process with its state in `folder/home`; killed when the block ends."""
    dns_port = -1
    if port is None:
        port = free_ports(3)
        dns_port = port + 2
    settings = {
        "TOSKA_HOME": str(folder / "home"),
        "TOSKA_DISCOVERY_PORT": str(port),
        "TOSKA_DISCOVERY_CONSUL_PORT": str(port + 1),
        "TOSKA_DISCOVERY_DNS_PORT": str(dns_port),
        "TOSKA_DISCOVERY_GRPC_PORT": "-1",
        "TOSKA_REGISTRY_URL": "",
        **environment,
    }
    with running([sys.executable, "-m", "toska_discovery"], folder, environment=settings) as program:
        yield DiscoveryProcess(program, folder / "home", port)


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """Where a registry answers in Consul's API and in DNS; `kind` is `embedded` or `consul`."""

    kind: str
    url: str
    token: str
    dns_port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of Consul's HTTP API."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def text(self) -> str:
        """Its body."""
        return self.content.decode()

    @property
    def index(self) -> int:
        """Its `X-Consul-Index`."""
        return int(self.headers["x-consul-index"])


class ConsulPort:
    """A registry's Consul API, asked in plain HTTP with the token that it needs; `kind` is `embedded` or `consul`."""

    def __init__(self, kind: str, url: str, http: httpx.AsyncClient) -> None:
        self.kind = kind
        self.url = url
        self._http = http

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request to `/v1/PATH`; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        answer = await self._http.request(method, f"{self.url}/v1/{path}", content=content, headers=headers)
        return Answer(answer.status_code, answer.headers, answer.content)

    async def get(self, path: str) -> Answer:
        """Send a GET."""
        return await self.ask("GET", path)

    async def put(self, path: str, body: Any = None) -> Answer:
        """Send a PUT."""
        return await self.ask("PUT", path, body)

    async def read(self, path: str) -> Any:
        """Send a GET and read its JSON."""
        return json.loads((await self.get(path)).content)


@asynccontextmanager
async def consul_port(kind: str, url: str, token: str = "") -> AsyncGenerator[ConsulPort]:
    """Talk to the Consul API at `url` until the block ends."""
    headers = {"x-consul-token": token} if token else {}
    async with http_client(headers=headers) as http:
        yield ConsulPort(kind, url, http)
