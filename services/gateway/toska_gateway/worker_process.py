"""One worker process as its parent sees it: started on a socket that stays ours, spoken to over a control channel."""

import asyncio
import itertools
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import anyio
import structlog
from anyio.lowlevel import checkpoint
from toska_common.child_process import ChildProcess, start_child
from toska_common.contracts.routing import Snapshot

from toska_gateway.tls_material import NO_TLS, TlsMaterial
from toska_gateway.wire import Known, messages
from toska_gateway.worker.control import ControlChannel

log = structlog.get_logger(__name__)

State = Literal["starting", "running", "draining", "dead"]
NOTHING_OPEN: Final[dict[str, Any]] = {"connections": 0, "cache": (0, 0), "clusters": {}}
ANSWER_TIMEOUT_S = 10.0
"""A worker that does not answer for so long is stuck and is replaced."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How one worker process is; counters are those since it started."""

    slot: int
    pid: int
    state: State
    connections: int
    requests: int
    routes_version: str


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who is told what workers say of themselves.

    Attributes:
        count: What one has counted since it last said.
        spans: Those of sampled requests.
        want_keys: The source of issuers' keys among which one has missed a key, and how to answer.
        tell: A line for the log, by its event and fields.
    """

    count: Callable[[Mapping[str, Any]], None]
    spans: Callable[[Sequence[Mapping[str, Any]]], None]
    want_keys: Callable[[str, Callable[[dict[str, Any]], None]], None]
    tell: Callable[[str, Mapping[str, Any]], None]


class WorkerLost(Exception):
    """The process ended, or does not answer."""


class WorkerProcess:
    """A started worker.

    Attributes:
        standing: How things stood in it when it was last asked, in the words of `toska_gateway.gauges`.
        requests: What it has served.
        compiled: Whether it runs the hot modules as machine code; known once it listens.
        spread: Told of what it wants all other workers to hear.
    """

    def __init__(self, slot: int, process: ChildProcess, hearers: Hearers) -> None:
        self.slot = slot
        self.process = process
        self.state: State = "starting"
        self.known = Known()
        self.standing: dict[str, Any] = NOTHING_OPEN
        self.requests = 0
        self.compiled = False
        self.spread: Callable[[WorkerProcess, Mapping[str, Any]], None] = _tell_nobody
        self._hearers = hearers
        self.channel = ControlChannel(self._on_message, self._on_lost)
        self._sequence = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ready = asyncio.Event()

    @classmethod
    async def start(
        cls,
        slot: int,
        listeners: Sequence[socket.socket],
        hello: Mapping[str, Any],
        hearers: Hearers,
    ) -> "WorkerProcess":
        """Start a process on `listeners`, and tell it `hello`, which says for each what kind it is."""
        ours, theirs = socket.socketpair()
        descriptors = theirs.fileno(), *(listener.fileno() for listener in listeners)
        shared = (hello["shared_fd"],)
        try:
            process = start_child(
                [sys.executable, "-m", "toska_gateway.worker", *map(str, descriptors)],
                pass_fds=(*descriptors, *shared),
                # What a terminal sends to our whole group is ours to act on: workers finish what they have when told.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        worker = cls(slot, process, hearers)
        await asyncio.get_running_loop().create_connection(lambda: worker.channel, sock=ours)
        worker.channel.send({"op": "hello", **hello})
        return worker

    async def apply(
        self,
        snapshot: Snapshot,
        mesh_owned: frozenset[str],
        tls: TlsMaterial = NO_TLS,
        keys: Collection[dict[str, Any]] = (),
    ) -> list[str]:
        """Bring the worker to `snapshot`; returns its problems, and then it has kept what it had.

        `keys` are the messages with the keys that its routes verify tokens with.

        Raises:
            WorkerLost: It ended, or does not answer.
        """
        # What is half sent, or not known to have been taken, would leave us with a wrong idea of what it has.
        problems: list[str] = []
        with anyio.CancelScope(shield=True):
            problems, crowded = await self._offer(snapshot, mesh_owned, tls, keys)
            if crowded:
                self.known = replace(self.known, crowded=True)
                problems, _ = await self._offer(snapshot, mesh_owned, tls, keys)
        return problems

    async def _offer(
        self, snapshot: Snapshot, mesh_owned: frozenset[str], tls: TlsMaterial, keys: Iterable[dict[str, Any]]
    ) -> tuple[list[str], bool]:
        for message in messages(self.known, snapshot, mesh_owned, tls):
            self.channel.send(message)
            await checkpoint()  # 10,000 routes take a second, and others have this loop too
        for message in keys:
            self.channel.send(message)
        answer = await self._ask("commit")
        if not answer["problems"]:
            self.known = Known(snapshot, tls.version)
        return answer["problems"], answer["crowded"]

    def take_health(self, cluster: str, unhealthy: list[str]) -> None:
        """Have it leave those endpoints of a cluster out."""
        self.channel.send({"op": "health", "cluster": cluster, "unhealthy": unhealthy})

    def take_ticket_secret(self, secret: str) -> None:
        """Have it seal TLS sessions anew."""
        self.channel.send({"op": "tickets", "secret": secret})

    async def purge(self, what: Mapping[str, str]) -> int:
        """Have it forget stored responses: by `url` or by `route`, else all; returns how many those were.

        Raises:
            WorkerLost: It ended, or does not answer.
        """
        return (await self._ask("purge", **what))["entries"]

    def forget(self, message: Mapping[str, Any]) -> None:
        """Have it forget what another worker has seen change."""
        self.channel.send(dict(message))

    async def refresh_report(self) -> None:
        """Fetch what the worker has counted since it was last asked, and how it stands."""
        await self._ask("stats")

    async def explain(self, request: bytes, peer: str, scheme: str) -> dict[str, Any]:
        """What it would do with a request's head; see `toska_gateway.worker.explaining`."""
        answer = await self._ask("explain", request=request.decode("latin-1"), peer=peer, scheme=scheme)
        return answer["told"]

    async def until_listening(self) -> None:
        """Wait until it accepts connections.

        Raises:
            WorkerLost: It ended, or does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._ready.wait()
        except TimeoutError:
            raise WorkerLost("the worker does not listen") from None
        if self.state == "dead":
            raise WorkerLost("the worker ended while starting")

    def drain(self, seconds: float) -> None:
        """Ask it to stop accepting, to finish within `seconds`, and to end."""
        if self.state != "dead":
            self.state = "draining"
            # A connection that is idle may have a request on its way: the more time there is, the longer it is kept.
            self.channel.send({"op": "drain", "seconds": seconds, "grace": max(0.2, seconds / 10)})

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def status(self) -> WorkerStatus:
        """How it is."""
        return WorkerStatus(
            slot=self.slot,
            pid=self.process.pid,
            state=self.state,
            connections=self.standing["connections"],
            requests=self.requests,
            routes_version="" if self.known.snapshot is None else self.known.snapshot.routes_version,
        )

    async def _ask(self, op: str, **words: object) -> dict[str, Any]:
        if self.state == "dead":
            raise WorkerLost("the worker has ended")
        sequence = next(self._sequence)
        answer = self._answers[sequence] = asyncio.get_running_loop().create_future()
        self.channel.send({"op": op, "seq": sequence, **words})
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise WorkerLost(f"the worker did not answer {op} within {ANSWER_TIMEOUT_S:.0f} s") from None
        finally:
            self._answers.pop(sequence, None)

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["op"] == "ready":
            self.compiled = message["compiled"]
            if self.state == "starting":
                self.state = "running"
            self._ready.set()
            return
        if message["op"] == "spans":
            self._hearers.spans(message["spans"])
            return
        if message["op"] == "log":
            write = getattr(log, message["level"])
            write(message["event"], slot=self.slot, pid=self.process.pid, **message["fields"])
            self._hearers.tell(message["event"], message["fields"])
            return
        if message["op"] == "forget":
            self.spread(self, message)
            return
        if message["op"] in ("left", "stats"):
            # Also if nobody waits for the answer any more: what it tells will not be told again.
            self._take_report(message)
            if message["op"] == "left":
                return
        if message["op"] == "keys-wanted":
            self._hearers.want_keys(message["source"], self.channel.send)
            return
        answer = self._answers.get(message["seq"])
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _take_report(self, report: dict[str, Any]) -> None:
        self.standing, counts = report["state"], report["counts"]
        self.requests += sum(sum(route["statuses"].values()) for route in counts["routes"].values())
        self._hearers.count(counts)

    def _on_lost(self) -> None:
        self.state = "dead"
        self._ready.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(WorkerLost("the worker ended"))


def _tell_nobody(worker: WorkerProcess, message: Mapping[str, Any]) -> None:
    """Until somebody knows of others."""
