"""The example services that `toska up` starts: what they are, and how they are doing."""

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio
import structlog

from toska_cli.children import ChildSpec, NurseryHandle

log = structlog.get_logger(__name__)

State = Literal["starting", "running", "restarting", "stopped"]

STOP_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Example:
    """One example service and how many instances of it run."""

    service: str
    app: str
    replicas: int


EXAMPLES = (Example("payments", "payments:app", replicas=2), Example("orders", "orders:app", replicas=1))
TRY_PATH = "/orders/42"
"""A request through the gateway that the examples answer: `orders` calls `payments` for it."""


def examples_folder() -> Path:
    """Where the examples' sources are: in the installed wheel, or in the repository."""
    installed = Path(__file__).with_name("example_sources")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "examples"


def child_specs(host: str, first_port: int, home: Path, environment: dict[str, str]) -> list[ChildSpec]:
    """One spec for each instance, on consecutive ports from `first_port` on."""
    folder = str(examples_folder())
    named = [
        (f"{example.service}-{number}" if example.replicas > 1 else example.service, example)
        for example in EXAMPLES
        for number in range(1, example.replicas + 1)
    ]
    return [
        ChildSpec(name, example.service, example.app, folder, host, first_port + offset, str(home), environment)
        for offset, (name, example) in enumerate(named)
    ]


class ExampleProcesses:
    """The host's view of the children that the nursery keeps alive."""

    def __init__(self, nursery: NurseryHandle) -> None:
        self._nursery = nursery
        self.states: dict[str, State] = {}
        self._ended = anyio.Event()

    def start(self, specs: list[ChildSpec]) -> None:
        """Start them all."""
        self.states = {spec.name: "starting" for spec in specs}
        self._nursery.start(specs)

    async def follow(self) -> None:
        """Keep `states` and the log up to date until the nursery has ended."""
        received = b""
        try:
            while chunk := await self._receive():
                *lines, received = (received + chunk).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
        finally:
            self.states = dict.fromkeys(self.states, "stopped")
            self._ended.set()

    async def stop(self) -> None:
        """Let the children drain and end; whatever is left after a while is killed."""
        with contextlib.suppress(OSError):
            self._nursery.control.sendall(b'{"stop": true}\n')
        with anyio.move_on_after(STOP_WITHIN_S):
            await self._ended.wait()
        self.kill()

    def kill(self) -> None:
        """End every child at once."""
        self._nursery.kill()
        self._nursery.control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._nursery.pid, 0)

    async def _receive(self) -> bytes:
        await anyio.wait_readable(self._nursery.control)
        return self._nursery.control.recv(65536)

    def _take(self, event: dict[str, Any]) -> None:
        name = event["child"]
        if event["event"] == "started":
            self.states[name] = "running"
            log.info("example_started", example=name, pid=event["pid"])
            return
        restart_in_s = event["restart_in_s"]
        self.states[name] = "stopped" if restart_in_s is None else "restarting"
        expected = restart_in_s is None or event["status"] in {0, -signal.SIGTERM}
        note = log.info if expected else log.warning
        note("example_ended", example=name, pid=event["pid"], status=event["status"], restart_in_s=restart_in_s)
