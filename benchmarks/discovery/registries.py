"""The registries that are compared: ours and Consul, both durable, both on one core."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import BenchError
from benchmarks.parts import ROOT, Program, find_program
from benchmarks.processes import free_ports


@dataclass(frozen=True, slots=True)
class Started:
    """A registry's command line. `through_catalog` is how it takes instances that are not the agent's own."""

    command: list[str | Path]
    environment: dict[str, str]
    port: int
    through_catalog: bool


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry: its version, how it is started in a folder of its own, and where its write token is then found."""

    name: str
    version: Callable[[], str]
    start: Callable[[Path], Started]
    token: Callable[[Path], str]


def find_consul() -> Program:
    """Consul by `CONSUL_BIN`, on PATH, among the unpacked parts, or unpacked now from the copy beside the repository.

    Raises:
        BenchError: It is nowhere.
    """
    if path := os.environ.get("CONSUL_BIN"):
        return Program(Path(path))
    if program := find_program("consul"):
        return program
    for package in sorted((ROOT.parent / "shared" / "packages").glob("consul_*.deb")):
        target = ROOT / ".cache" / "parts" / "root"
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", package, target], check=True, timeout=60)
    if program := find_program("consul"):
        return program
    raise BenchError("there is no Consul; install it, or point CONSUL_BIN at its binary")


def _start_consul(folder: Path) -> Started:
    http, server, lan, wan = free_ports(4)
    command: list[str | Path] = [
        *(find_consul().path, "agent", "-server", "-bootstrap-expect=1", "-data-dir", folder / "data"),
        *("-bind", "127.0.0.1", "-log-level", "err", "-http-port", str(http), "-server-port", str(server)),
        *("-serf-lan-port", str(lan), "-serf-wan-port", str(wan), "-dns-port", "-1", "-grpc-port", "-1"),
        # The timing that its manual asks for in production, and room for the watchers.
        *("-hcl", "performance { raft_multiplier = 1 } limits { http_max_conns_per_client = 10000 }"),
    ]
    return Started(command, {}, http, through_catalog=True)


def _consul_version() -> str:
    return find_consul().version("version").partition("v")[2]


CONSUL = Registry("consul", _consul_version, _start_consul, lambda _: "")


def _start_toska(folder: Path) -> Started:
    consul, rest = free_ports(2)
    environment = {
        "TOSKA_HOME": str(folder / "home"),
        "TOSKA_DISCOVERY_PORT": str(rest),
        "TOSKA_DISCOVERY_CONSUL_PORT": str(consul),
        "TOSKA_DISCOVERY_DNS_PORT": "-1",
        "TOSKA_DISCOVERY_GRPC_PORT": "-1",
    }
    return Started([sys.executable, "-m", "toska_discovery"], environment, consul, through_catalog=False)


def _toska_token(folder: Path) -> str:
    return (folder / "home" / "admin.token").read_text().strip()


TOSKA = Registry("toska", lambda: version("toska-discovery"), _start_toska, _toska_token)
REGISTRIES = {registry.name: registry for registry in (CONSUL, TOSKA)}
