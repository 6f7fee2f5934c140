"""One Envoy process: started, listened to, and seen off."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import anyio
import structlog
from toska_common.child_process import ChildProcess, start_child
from toska_common.errors import UpstreamUnavailable

from toska_gateway.envoy.admin_socket import AdminSocket

log = structlog.get_logger(__name__)

State = Literal["starting", "running", "draining", "dead"]
_LAUNCH: Final = Path(__file__).with_name("launch.py")
_LINE: Final = re.compile(r"\[[^\]]*\]\[\d+\]\[(?P<level>\w+)\]\[(?P<part>\w+)\] (?:\[[^\]]*\] )?(?P<text>.*)")
_REFUSED: Final = re.compile(
    r"(?:rejected|update for .* failed|error(?: adding| initializing| updating)?[^:]*): ?(.*)", re.I
)
_MAX_LINE: Final = 8192
_START_S: Final = 20.0
_LOOK_S: Final = 0.01


class Turn(NamedTuple):
    """Which process of a family this is: each takes over the listening sockets of the one before, and what is queued.

    (Envoy's hot restart. A process that takes over from nobody begins a family of its own.)
    """

    family: int
    number: int

    @classmethod
    def first(cls) -> "Turn":
        """Of a new family."""
        return cls(secrets.randbelow(2**20) + 1, 0)

    @property
    def next(self) -> "Turn":
        """The successor's."""
        return Turn(self.family, self.number + 1)


@dataclass(frozen=True, slots=True)
class EnvoyStatus:
    """How an Envoy process is; counters are those since it started."""

    pid: int
    state: State
    connections: int = 0
    requests: int = 0


class EnvoyLost(Exception):
    """The process ended, or does not come up."""


class EnvoyProcess:
    """A started Envoy.

    Attributes:
        node: What it calls itself where it is told what to do.
        admin: Its administration.
        turn: Which one of its family it is.
        state: Like a worker's.
        complaints: What it said last of configuration that it did not take.
    """

    def __init__(self, process: ChildProcess, node: str, admin: AdminSocket, turn: Turn) -> None:
        self.process = process
        self.turn = turn
        self.node = node
        self.admin = admin
        self.state: State = "starting"
        self.connections = 0
        self.requests = 0
        self.complaints: deque[str] = deque(maxlen=20)

    @classmethod
    def start(
        cls, binary: Path, config: Path, node: str, admin: AdminSocket, turn: Turn, *, threads: int, drain_s: float
    ) -> "EnvoyProcess":
        """Start one; the system ends it if we are killed.

        Raises:
            OSError: The system cannot.
        """
        drain = max(1, round(drain_s))
        arguments: Sequence[str | Path] = (
            "-c", config, "--concurrency", str(threads), "--log-level", "warning",
            "--base-id", str(turn.family), "--restart-epoch", str(turn.number), "--skip-hot-restart-parent-stats",
            "--drain-time-s", str(drain), "--drain-strategy", "immediate", "--parent-shutdown-time-s", str(drain),
            "--log-format", "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v",
        )  # fmt: skip
        process = start_child(
            [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), binary, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # What a terminal sends to our whole group is ours to act on.
            start_new_session=True,
        )
        return cls(process, node, admin, turn)

    async def listen_to(self) -> None:
        """Pass on what it writes to our log, until it has ended."""
        rest = b""
        async for chunk in self.process.output():
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_MAX_LINE:]
            for line in lines:
                self._hear(line.decode(errors="replace")[:_MAX_LINE])
        self.state = "dead"

    def _hear(self, line: str) -> None:
        match = _LINE.match(line)
        if match is None:
            if line.startswith("{"):
                sys.stdout.write(line + "\n")  # an access log on stdout
            elif line:
                self.complaints.append(line)
                log.info("envoy_said", pid=self.process.pid, text=line)
            return
        text, level = match["text"], match["level"]
        if text.startswith("Deprecated field") or "marked as work-in-progress" in text:
            log.debug("envoy_warned", pid=self.process.pid, part=match["part"], text=text)
        elif level in ("warning", "error", "critical"):
            self.complaints.append(text)
            log.warning("envoy_warned", pid=self.process.pid, part=match["part"], text=text)

    def complaint(self) -> str:
        """Why it did not take what it was given last, in its own words."""
        for text in reversed(self.complaints):
            if _REFUSED.search(text):
                return text
        return self.complaints[-1] if self.complaints else "Envoy does not say why"

    async def until_live(self) -> None:
        """Wait until it serves.

        Raises:
            EnvoyLost: It ended, or does not come up in time.
        """
        with anyio.move_on_after(_START_S):
            while self.state != "dead":
                try:
                    info: dict[str, Any] = json.loads(await self.admin.get("/server_info"))
                except UpstreamUnavailable:
                    info = {}
                if info.get("state") == "LIVE":
                    self.state = "running"
                    return
                await anyio.sleep(_LOOK_S)
        raise EnvoyLost(f"Envoy does not serve: {self.complaint()}")

    async def drain(self) -> None:
        """Have it accept no more, and close each connection with its next answer.

        Raises:
            UpstreamUnavailable: It does not answer.
        """
        await self.admin.post("/healthcheck/fail")
        await self.admin.post("/drain_listeners")

    async def in_flight(self) -> tuple[int, int]:
        """Connections of clients, and requests, that are open; raises like `drain`."""
        told = await self.admin.stats(r"^http\.edge\.downstream_(cx|rq)_active$")
        return int(told.get("http.edge.downstream_cx_active", 0)), int(told.get("http.edge.downstream_rq_active", 0))

    def terminate(self) -> None:
        """Have it end by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def status(self) -> EnvoyStatus:
        """How it is."""
        return EnvoyStatus(self.process.pid, self.state, self.connections, self.requests)
