"""A gateway worker: one process, one loop, listening sockets that its parent opened and will hand to a successor."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import uvloop
from toska_common.targets import TargetRules

from toska_gateway import COMPILED
from toska_gateway.worker.control import ControlChannel
from toska_gateway.worker.explaining import explain
from toska_gateway.worker.opening import Door
from toska_gateway.worker.plane import Plane
from toska_gateway.worker.staging import Staging
from toska_gateway.worker.via import Via

_BACKLOG: Final = 4096
_DRAIN_POLL: Final = 0.02
_DRAIN_GRACE: Final = 0.2
_MAX_UNSENT: Final = 1024 * 1024
"""Bytes that the parent has not taken yet, with which it gets no spans."""
_LAST_LINES_S: Final = 1.0
"""How long a worker that ends may take to write what its access log still holds."""


class Worker:
    """Answers the parent's messages and runs the data plane between them."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._doors: list[dict[str, Any]] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._plane = Plane(self._loop, TargetRules())
        self._staging = Staging(self._plane)
        self._channel = ControlChannel(self._on_message, self._on_parent_lost)
        self._plane.tell = self._tell
        self._plane.ask_for_keys = self._ask_for_keys
        self._plane.spread = self._channel.send
        self._plane.send_spans = self._send_spans
        self._starting: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()

    async def run(self, control: socket.socket) -> None:
        """Serve until drained."""
        await self._loop.create_connection(lambda: self._channel, sock=control)
        self._plane.start()
        await self._drained.wait()
        self._plane.stop()
        await self._plane.close_links()
        self._plane.close_log(_LAST_LINES_S)
        self._plane.flush_spans()
        self._channel.send({"op": "left", **self._report()})
        self._channel.close()

    def _on_message(self, message: dict[str, Any]) -> None:
        op = message["op"]
        if op in ("clusters", "endpoints", "keys", "places", "routes", "table", "tls"):
            self._staging.take(message)
        elif op == "commit":
            # So that the first requests of a route are counted with everybody's; once, and for a second at most.
            self._plane.when_linked(partial(self._commit, message["seq"]))
        elif op == "stats":
            self._channel.send({"op": "stats", "seq": message["seq"], **self._report()})
        elif op == "explain":
            told = explain(self._plane, message["request"].encode("latin-1"), message["peer"], message["scheme"])
            self._channel.send({"op": "explained", "seq": message["seq"], "told": told})
        elif op == "hello":
            rules = TargetRules(frozenset((address, port) for address, port in message["management"]))
            self._plane.connector.rules = rules
            self._plane.via = Via(message["pseudonym"])
            self._plane.ticket_secret = bytes.fromhex(message["ticket_secret"])
            self._plane.affinity_secret = bytes.fromhex(message["affinity_secret"])
            self._plane.shared_fd = message["shared_fd"]
            self._plane.cache_url = message["cache_url"]
            self._plane.zone = message["zone"]
            self._plane.folder = message["folder"]
            self._plane.filters_folder = message["filters_folder"]
            self._doors = message["listeners"]
        elif op == "health":
            self._plane.judge(message["cluster"], message["unhealthy"])
        elif op == "tickets":
            self._plane.take_ticket_secret(bytes.fromhex(message["secret"]))
        elif op in ("purge", "forget", "outdated"):
            self._forget(message)
        elif op == "drain":
            self.drain(message["seconds"], message["grace"])

    def _send_spans(self, spans: list[dict[str, Any]]) -> bool:
        if self._channel.unsent > _MAX_UNSENT:
            return False
        self._channel.send({"op": "spans", "spans": spans})
        return True

    def _tell(self, level: str, event: str, fields: dict[str, Any]) -> None:
        self._channel.send({"op": "log", "level": level, "event": event, "fields": fields})

    def _ask_for_keys(self, source: str) -> None:
        self._channel.send({"op": "keys-wanted", "source": source})

    def _commit(self, seq: int) -> None:
        if self._staging.prepare():
            self._loop.call_soon(self._commit, seq)
            return
        problems = self._staging.commit()
        self._channel.send({"op": "ack", "seq": seq, "problems": problems, "crowded": self._staging.crowded})
        if self._starting is None and not problems:
            self._starting = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        for listener, spec in zip(self._listeners, self._doors, strict=True):
            door = Door(self._plane, spec)
            serve = self._loop.create_unix_server if spec["unix"] else self._loop.create_server
            self._servers.append(await serve(door, sock=listener, backlog=_BACKLOG))
        # What is here now lives as long as the process: the collector need not look at it again. Requests leave no
        # cycles behind, so it may also look less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        self._channel.send({"op": "ready", "compiled": COMPILED})

    def _forget(self, message: dict[str, Any]) -> None:
        cache = self._plane.cache
        if message["op"] == "purge":
            entries = 0 if cache is None else cache.purge(message)
            self._channel.send({"op": "purged", "seq": message["seq"], "entries": entries})
        elif cache is not None and message["op"] == "outdated":
            cache.end(message)
        elif cache is not None:
            cache.forget_urls(message["urls"])

    def _report(self) -> dict[str, Any]:
        plane = self._plane
        report = {"counts": plane.stats.take(), "state": plane.state()}
        plane.forget_endpoints()
        return report

    def _on_parent_lost(self) -> None:
        if not self._drained.is_set():
            self._plane.close_log(_LAST_LINES_S)
            os._exit(1)  # nobody is left who would hand the socket on or collect us

    def drain(self, seconds: float, grace: float) -> None:
        """Stop accepting, finish what is in flight within `seconds`, then end; idle connections stay for `grace`."""
        if self._plane.draining:
            return
        self._plane.draining = True
        for server in self._servers:
            server.close()
        for downstream in list(self._plane.downstreams):
            downstream.answer_for_the_last_time()
        # A request may be on its way on any connection, however idle, and on those that have just been accepted. Each
        # may have one more, whose answer closes it; what has had none after the grace is closed.
        now = self._loop.time()
        self._loop.call_later(_DRAIN_POLL, self._await_quiet, now + min(seconds, grace), now + seconds)

    def _await_quiet(self, grace: float, deadline: float) -> None:
        now, downstreams = self._loop.time(), list(self._plane.downstreams)
        if now >= grace:
            for downstream in downstreams:
                downstream.close_if_idle()
        # A client that keeps an idle connection may not look at it for long, so those are not waited for to the end.
        idle = all(downstream.closing for downstream in downstreams)
        if not downstreams or (idle and now >= grace) or now >= deadline:
            for downstream in downstreams:
                if not downstream.closing:
                    downstream.abort()
            self._drained.set()
            return
        self._loop.call_later(_DRAIN_POLL, self._await_quiet, grace, deadline)


def main(control_fd: int, *listen_fds: int) -> None:
    """Run a worker on file descriptors that its parent left open for it."""
    # Ctrl-C reaches the whole process group; the parent decides what it means. SIGTERM drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=control_fd)
    listeners = [socket.socket(fileno=descriptor) for descriptor in listen_fds]
    for end in (control, *listeners):
        end.setblocking(False)

    async def serve() -> None:
        worker = Worker(listeners)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain, 5.0, _DRAIN_GRACE)
        await worker.run(control)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
