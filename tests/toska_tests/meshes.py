"""A whole mesh as a real process, as a user starts it."""

import contextlib
import json
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil

from toska_tests.clients import http_client
from toska_tests.ports import free_ports
from toska_tests.programs import Program, running
from toska_tests.waiting import wait_until

TOSKA = Path(sys.executable).with_name("toska")
PYTHON = Path(sys.executable)
START_WITHIN_S = 30.0
"""For a machine of CI that does other things as well; how fast a mesh starts is measured in the benches."""


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A mesh that said that it is ready.

    Attributes:
        line: What `toska up --json` printed.
        folder: The working directory that it was started in.
    """

    program: Program
    line: Mapping[str, Any]
    folder: Path
    environment: Mapping[str, str]

    @property
    def home(self) -> Path:
        """Its state folder."""
        return Path(self.line["home"])

    @property
    def gateway(self) -> str:
        """Base URL of the data listener."""
        return self.line["urls"]["gateway"]

    def url(self, part: str) -> str:
        """Base URL of a part: gateway_admin, registry, discovery, router."""
        return self.line["urls"][part]

    def token(self, access: str) -> str:
        """The `admin` or `join` token."""
        return (self.home / f"{access}.token").read_text().strip()

    def authorization(self, access: str) -> dict[str, str]:
        """Headers of a bearer of that token."""
        return {"authorization": f"Bearer {self.token(access)}"}


def surroundings(folder: Path) -> dict[str, str]:
    """Environment of a user whose folders are all below `folder` and who has set nothing."""
    return {"HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "TOSKA_HOME": "", "TOSKA_REGISTRY_URL": ""}


@asynccontextmanager
async def toska_up(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, command: Path = TOSKA
) -> AsyncGenerator[RunningMesh]:
    """Run `toska up --json` in `folder` on free ports until the block ends."""
    merged = {**surroundings(folder), **(environment or {})}
    arguments = [command, "up", "--json", "--ports-from", str(free_ports(20)), *options]
    with running(arguments, folder, environment=merged) as program:
        line = json.loads(await program.line(within=START_WITHIN_S))
        yield RunningMesh(program, line, folder, merged)


@asynccontextmanager
async def joined_app(
    mesh: RunningMesh, module: ModuleType, service: str, *, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Program]:
    """Run the app in `module` by `toska run` until the block ends; ready once the gateway routes to it."""
    source = Path(module.__file__ or "")
    shutil.copy(source, mesh.folder)
    merged = {**mesh.environment, **(environment or {})}
    with running([TOSKA, "run", f"{source.stem}:app"], mesh.folder, environment=merged) as program:
        await wait_until(
            lambda: answers(f"{mesh.gateway}/{service}/openapi.json"),
            within=START_WITHIN_S,
            what=f"a route to {service}; it said: {program.stderr[-2000:]}",
        )
        yield program


async def answers(url: str, status: int = 200) -> bool:
    """Whether `url` answers with `status` now."""
    async with http_client(timeout=10) as client:
        try:
            return (await client.get(url)).status_code == status
        except httpx.HTTPError:
            return False


def listener_of(family: Sequence[psutil.Process], port: int) -> psutil.Process:
    """The one of these processes that listens on `port`.

    Raises:
        AssertionError: None does.
    """
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return process
    raise AssertionError(f"none of {len(family)} processes listens on {port}")
