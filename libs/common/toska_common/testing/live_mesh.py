"""A whole mesh for a test: `toska up` as a process of its own, on free ports, with a state folder of its own."""

import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

START_WITHIN = timedelta(seconds=30)
STOP_WITHIN_S = 10.0
PORTS = 20
"""How many consecutive ports a mesh may use."""


class MeshNotStarted(Exception):
    """`toska up` ended, or took too long; the message has what it said."""


@dataclass(frozen=True, slots=True)
class LiveMesh:
    """A running mesh.

    Attributes:
        urls: By part: `gateway`, `gateway_admin`, `registry`, `discovery`, `router`.
        home: Its state folder, with `admin.token` and `join.token`.
    """

    urls: Mapping[str, str]
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which an app joins this mesh and no other."""
        return {
            "TOSKA_HOME": str(self.home),
            "TOSKA_REGISTRY_URL": self.urls["registry"],
            "TOSKA_JOIN_TOKEN_FILE": str(self.home / "join.token"),
        }


@contextmanager
def live_mesh(*arguments: str, start_within: timedelta = START_WITHIN) -> Generator[LiveMesh]:
    """Run a mesh without the examples while the block runs.

        with live_mesh() as mesh:
            subprocess.Popen(["uvicorn", "orders:app", "--port", "9001"], env=os.environ | mesh.environment)

    Needs the `toska` command (package `toska-cli`) beside this interpreter or on PATH.

    Args:
        arguments: Further ones of `toska up`.
        start_within: How long it may take to be ready.

    Raises:
        MeshNotStarted: It did not become ready.
    """
    command = [_find_command(), "up", "--json", "--no-examples", "--ports-from", str(_free_ports(PORTS)), *arguments]
    with tempfile.TemporaryDirectory(prefix="toska-mesh-") as folder, tempfile.TemporaryFile() as errors:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TOSKA_")}
        environment |= {"TOSKA_HOME": f"{folder}/home", "XDG_STATE_HOME": f"{folder}/state"}
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors) as process:  # noqa: S603 - our own command
            try:
                line = _read_line(process, time.monotonic() + start_within.total_seconds())
                if not line:
                    process.kill()
                    errors.seek(0)
                    said = errors.read().decode(errors="replace").strip()
                    raise MeshNotStarted(f"toska up did not become ready: {said or 'it said nothing'}")
                ready = json.loads(line)
                yield LiveMesh(urls=ready["urls"], home=Path(ready["home"]))
            finally:
                _stop(process)


def _find_command() -> str:
    beside = Path(sys.executable).with_name("toska")
    found = str(beside) if beside.is_file() else shutil.which("toska")
    if found is None:
        raise MeshNotStarted("there is no `toska` command; install toska-cli")
    return found


def _read_line(process: "subprocess.Popen[bytes]", deadline: float) -> bytes:
    pipe = process.stdout
    received = b""
    while pipe is not None and b"\n" not in received:
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(pipe.fileno(), 65536) if readable else b""
        if not chunk:
            return b""
        received += chunk
    return received


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_ports(count: int) -> int:
    """The first of `count` consecutive ports that are free now, below where the kernel takes ports for connections."""
    for _ in range(100):
        first = random.randrange(20000, 32000 - count)  # noqa: S311 - spreads tests over ports, guards nothing
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise MeshNotStarted(f"found no {count} consecutive free ports between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0
