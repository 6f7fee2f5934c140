"""The example services, as processes: forked from this one while it is warm, restarted when they die.

Importing FastAPI and the SDK takes longer than the rest of a service's start, so the host forks a *nursery* once these
are imported and before it has a loop, a thread or a socket. The nursery forks each child from its own memory: a
replica is there, or back, within milliseconds and shares most of its memory with its siblings. It speaks with the host
over one socket, JSON lines both ways; when the host is gone, however it went, the socket ends and so does the nursery.
"""

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, NoReturn

from toska_cli.backoff import Backoff
from toska_cli.lifeline import die_with_parent, exit_at_end_of

STOP_GRACE_S = 1.5
"""How long children may drain before they are killed."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: an ASGI app of a folder, served on a port of its own.

    Attributes:
        name: Unique among the children, such as `payments-2`.
        service: The service it is an instance of.
        app: `module:attribute`, importable from `folder`.
        home: State folder of the mesh; output goes to its `logs`.
        environment: Set before the app is imported.
    """

    name: str
    service: str
    app: str
    folder: str
    host: str
    port: int
    home: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class _Life:
    """A child's present: the process that lives, or when the next one is due."""

    spec: ChildSpec
    backoff: Backoff = field(default_factory=Backoff)
    pid: int = 0
    started_at: float = 0.0
    due_at: float = 0.0


class Nursery:
    """The nursery's own process: keeps one process alive for each spec, until it is told to stop.

    A plain select loop: nothing here may start a thread, or forking would no longer be safe.
    """

    def __init__(self, control: socket.socket, run_child: Callable[[ChildSpec], NoReturn]) -> None:
        self._control = control
        self._run_child = run_child
        self._lives: dict[str, _Life] = {}
        self._received = b""
        self._stopping = False
        self._lifeline, self._lifeline_end = os.pipe()
        self._wakeup, wakeup_end = os.pipe()
        os.set_blocking(wakeup_end, False)
        signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)
        # The host decides when this ends; a terminal's Ctrl-C is the host's to handle.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def run(self) -> None:
        """Run until stopped; every child has ended when this returns."""
        while not self._stopping:
            readable, _, _ = select.select([self._control, self._wakeup], [], [], self._time_to_next())
            if self._wakeup in readable:
                os.read(self._wakeup, 4096)
            if self._control in readable:
                self._receive()
            self._reap()
            if not self._stopping:
                self._start_due()
        self._end_children()

    def _receive(self) -> None:
        chunk = self._control.recv(65536)
        if not chunk:
            self._stop()
            return
        *lines, self._received = (self._received + chunk).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if message.get("stop"):
                self._stop()
            for spec in message.get("start", ()):
                self._lives[spec["name"]] = _Life(ChildSpec(**spec))

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopping = True

    def _time_to_next(self) -> float | None:
        due = [life.due_at for life in self._lives.values() if not life.pid]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self) -> None:
        now = time.monotonic()
        for life in self._lives.values():
            if not life.pid and life.due_at <= now:
                self._start(life, now)

    def _start(self, life: _Life, now: float) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(life.spec, parent)
        life.pid, life.started_at = pid, now
        self._report(child=life.spec.name, event="started", pid=pid)

    def _become(self, spec: ChildSpec, parent: int) -> NoReturn:
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._control.close()
            os.close(self._lifeline_end)
            exit_at_end_of(self._lifeline)
            self._run_child(spec)
        except SystemExit:  # uvicorn's way to say that it logged why it cannot serve
            pass
        except BaseException:  # noqa: BLE001 - whatever it was, a forked child must not return into the parent's code
            import traceback

            traceback.print_exc()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while any(life.pid for life in self._lives.values()):
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            life = next(life for life in self._lives.values() if life.pid == pid)
            now = time.monotonic()
            delay = life.backoff.delay_after(now - life.started_at)
            life.pid, life.due_at = 0, now + delay
            self._report(
                child=life.spec.name,
                event="ended",
                pid=pid,
                status=os.waitstatus_to_exitcode(status),
                restart_in_s=None if self._stopping else delay,
            )

    def _end_children(self) -> None:
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        while any(life.pid for life in self._lives.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                self._signal_all(signal.SIGKILL)
            readable, _, _ = select.select([self._wakeup], [], [], max(0.05, left))
            if readable:
                os.read(self._wakeup, 4096)
            self._reap()

    def _signal_all(self, number: signal.Signals) -> None:
        for life in self._lives.values():
            if life.pid:
                os.kill(life.pid, number)

    def _report(self, **event: Any) -> None:
        try:
            self._control.sendall(json.dumps(event).encode() + b"\n")
        except OSError:  # the host is gone
            self._stop()


def _wake(_number: int, _frame: FrameType | None) -> None:
    """Let the signal interrupt `select` through the wakeup descriptor."""


@dataclass(frozen=True, slots=True)
class NurseryHandle:
    """The host's end."""

    pid: int
    control: socket.socket

    def start(self, specs: list[ChildSpec]) -> None:
        """Start these children."""
        self.control.sendall(json.dumps({"start": [asdict(spec) for spec in specs]}).encode() + b"\n")

    def kill(self) -> None:
        """End it and everything below it at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def fork_nursery(run_child: Callable[[ChildSpec], NoReturn]) -> NurseryHandle:
    """Fork the nursery. Call it once, with everything imported that children share, and before any thread or loop."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return NurseryHandle(pid, ours)
    code = 1
    try:
        os.setpgid(0, 0)  # a group of its own: the terminal's Ctrl-C is for the host
        ours.close()
        Nursery(theirs, run_child).run()
        code = 0
    finally:
        os._exit(code)
