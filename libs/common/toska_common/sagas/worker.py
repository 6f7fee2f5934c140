"""This process at work on sagas under one hold on a slot: from claiming it to leaving it, or to losing it.

    claim a slot ─▶ open DBOS under its name ─▶ tend: renew · look for the dead · watch for wishes ─▶ close, release
                                                  └──the slot is lost──▶ close, without a word to the database

A sweep, every half of a lease, gives the sagas of processes whose lease has lapsed to whoever asks first; several may
sweep at once. It also finds sagas that were stored and never started, since their process died in between, and those
that got stuck because nobody knew them, once somebody does.
"""

import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal
from anyio.to_thread import run_sync

from toska_common.clock import now_utc
from toska_common.contracts.sagas import SagaState
from toska_common.database import Database, DatabaseUnavailable
from toska_common.errors import MeshError
from toska_common.sagas.conducting import UNKNOWN_SAGA, Conductor, patiently
from toska_common.sagas.control import Control
from toska_common.sagas.definition import Saga
from toska_common.sagas.engine import Engine
from toska_common.sagas.errors import LeaseLost
from toska_common.sagas.journal import Journal
from toska_common.sagas.metrics import SagaMetrics
from toska_common.sagas.slots import Holder, Slots
from toska_common.sagas.store import NewSaga, SagaStore

log = structlog.get_logger(__name__)

_FORGOTTEN_AT_ONCE = 100
"""Sagas that one sweep deletes, so that a first one after long does not hold the lock of all that write for long."""

_LOOKED_AT_MOST_S = 0.05


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker is made of that outlives it."""

    service: str
    database: Database
    definitions: Mapping[tuple[str, int], Saga[Any, Any]]
    metrics: SagaMetrics
    lease: timedelta
    concurrency: int
    stopping: timedelta
    keep: timedelta


class Worker:
    """Made by `at_work`.

    Attributes:
        lost: Set once the slot is somebody else's.
    """

    def __init__(self, parts: WorkerParts, slots: Slots, holder: Holder, portal: BlockingPortal) -> None:
        self.store = SagaStore(parts.database, slots)
        self.holder = holder
        self.lost = anyio.Event()
        self._changed = anyio.Event()
        self._awaited: dict[str, set[anyio.Event]] = {}
        self._renewing = anyio.CancelScope()
        self._parts = parts
        self._slots = slots
        self._controls: dict[str, Control] = {}
        self._idle = anyio.Event()
        self._leaving = False
        self._given: Counter[str] = Counter()
        self._conductor = Conductor(
            service=parts.service,
            store=self.store,
            holder=holder,
            definitions=parts.definitions,
            metrics=parts.metrics,
            entered=self._entered,
            leaving=lambda: self._leaving,
            concurrency=parts.concurrency,
        )
        self._engine = Engine(parts.database.location, parts.service, portal, self._conduct)

    async def start(self, new: NewSaga) -> None:
        """Store a saga and have it run; the same one again changes nothing.

        Raises:
            SagaIdTaken: The id belongs to another one.
            DatabaseUnavailable: It may have been stored nevertheless: start it again, with its id.
            LeaseLost: It was not stored; a later worker can do it.
        """
        if await self.store.add(new, self.holder):
            self._parts.metrics.started(new.name)
            log.info("saga_started", saga=new.id, name=new.name, version=new.version)
        await self._engine.start(new.id)

    async def resume(self, saga_id: str) -> None:
        """Have a saga run again that is stuck; raises as `SagaStore.unstick`."""
        await self.store.unstick(saga_id, self.holder.executor)
        log.info("saga_resumed", saga=saga_id)
        await self._engine.resume(saga_id)

    @contextmanager
    def awaiting(self, saga_id: str) -> Generator[anyio.Event]:
        """An event that is set when a saga may have ended or got stuck, wherever it runs."""
        event = anyio.Event()
        self._awaited.setdefault(saga_id, set()).add(event)
        try:
            yield event
        finally:
            others = self._awaited.get(saga_id, set())
            others.discard(event)
            if not others:
                self._awaited.pop(saga_id, None)

    async def tend(self) -> None:
        """Keep the slot, look after the sagas of those who lost theirs, and watch for wishes; ends with our hold."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._parts.database.watch, self._on_change)
            group.start_soon(self._watch)
            group.start_soon(self._sweep_now_and_then)
            await self.lost.wait()
            group.cancel_scope.cancel()

    @classmethod
    @asynccontextmanager
    async def at_work(cls, parts: WorkerParts, group: TaskGroup) -> AsyncGenerator["Worker"]:
        """Open it, and leave in good order; what keeps its slot meanwhile runs in `group`.

        Raises:
            ConfigurationError, DatabaseUnavailable: As `Database.open`.
        """
        await parts.database.open()
        slots = Slots(parts.database, parts.service, round(parts.lease.total_seconds() * 1000))
        holder = await slots.claim(f"{socket.gethostname()} pid {os.getpid()}"[:128])
        async with _portal() as portal:
            worker = cls(parts, slots, holder, portal)
            try:
                # From the start, since opening can take longer than a lease where many do it at once.
                group.start_soon(worker._renew_until_lost)
                await worker._engine.open(holder.executor)
                log.info("sagas_opened", executor=holder.executor, database=str(parts.database.location))
                yield worker
            finally:
                with anyio.CancelScope(shield=True):
                    await worker._leave(portal)

    # Of the sagas that run here.

    async def _conduct(self, saga_id: str, journal: Journal) -> bool:
        self._given[saga_id] += 1
        try:
            return await self._conductor.conduct(saga_id, journal)
        finally:
            self._given[saga_id] -= 1
            self._given += Counter()  # drops those that are at nought
            self._tell_awaiting(saga_id)

    @contextmanager
    def _entered(self, saga_id: str, control: Control) -> Generator[None]:
        self._controls[saga_id] = control
        try:
            yield
        finally:
            if self._controls.get(saga_id) is control:
                del self._controls[saga_id]
            if not self._controls:
                self._idle.set()
                self._idle = anyio.Event()

    async def _leave(self, portal: BlockingPortal) -> None:
        self._leaving = True
        for control in self._controls.values():
            control.wake()
        # Of a slot that is lost, others do the work already.
        patience_s = 0.0 if self.lost.is_set() else self._parts.stopping.total_seconds()
        with anyio.move_on_after(patience_s):
            while self._controls:
                await self._idle.wait()
        await portal.stop(cancel_remaining=True)
        await run_sync(self._engine.close)
        self._renewing.cancel()
        with anyio.move_on_after(1):
            try:
                await self._slots.release(self.holder)
            except MeshError as error:
                log.warning("saga_slot_kept", executor=self.holder.executor, reason=error.detail)

    # What `tend` does.

    async def _renew_until_lost(self) -> None:
        lease_s = self._parts.lease.total_seconds()
        with self._renewing:
            while not self.lost.is_set():
                await anyio.sleep(lease_s / 3)
                await self._renew()

    async def _renew(self) -> None:
        try:
            await self._slots.renew(self.holder)
        except DatabaseUnavailable as error:
            # Whoever cannot reach it can begin nothing; whether the lease holds, the database tells afterwards.
            log.warning("saga_lease_not_renewed", executor=self.holder.executor, reason=error.detail)
        except LeaseLost:
            self._parts.metrics.lost()
            log.error("saga_lease_lost", executor=self.holder.executor)
            self.lost.set()

    def _on_change(self) -> None:
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            self._changed = anyio.Event()
            if self._controls:
                for saga_id in await patiently(partial(self.store.cancelled, tuple(self._controls))):
                    control = self._controls.get(saga_id)
                    if control is not None and not control.cancelled:
                        control.cancel()
            # Those that run here tell by themselves.
            if elsewhere := tuple(self._awaited.keys() - self._given.keys()):
                for saga_id in await patiently(partial(self.store.settled, elsewhere)):
                    self._tell_awaiting(saga_id)
            await self._changed.wait()
            await anyio.sleep(_LOOKED_AT_MOST_S)  # our own steps are changes, too

    def _tell_awaiting(self, saga_id: str) -> None:
        for event in self._awaited.get(saga_id, ()):
            event.set()

    async def _sweep_now_and_then(self) -> None:
        while True:
            try:
                await self._sweep()
            except MeshError as error:
                log.warning("saga_sweep_failed", reason=error.detail)
            await anyio.sleep(self._parts.lease.total_seconds() / 2)

    async def _sweep(self) -> None:
        # In this order: whoever is found at work, and is not dead, had its lease before that, and so has it now.
        executors = await self._engine.pending_executors()
        unfinished = await self.store.unfinished()
        live = await self._slots.live_executors()
        self._parts.metrics.unfinished(Counter(row.state for row in unfinished))
        if dead := executors - live:
            self._parts.metrics.taken_over(len(dead))
            log.warning("sagas_taken_over", executors=sorted(dead), by=self.holder.executor)
            await self._engine.take_over(dead)
        for row in unfinished:
            await self._look_after(row, live)
        await self._forget_old_ones()

    async def _forget_old_ones(self) -> None:
        old = await self.store.ended_before(now_utc() - self._parts.keep, _FORGOTTEN_AT_ONCE)
        if old:
            # In this order: whoever dies in between leaves what is found again.
            await self._engine.forget(old)
            await self.store.forget(old)

    async def _look_after(self, row: Any, live: set[str]) -> None:
        if row.state == SagaState.STUCK:
            if row.stuck.startswith(UNKNOWN_SAGA) and (row.name, row.version) in self._parts.definitions:
                with _unless_done_meanwhile():
                    await self.resume(row.id)
        elif row.executor not in live and not await self._engine.is_known(row.id):
            await self._engine.start(row.id)
        elif self._is_adrift(row) and await self._engine.is_held_by(row.id, self.holder.executor):
            # Somebody resumed it, and died before it was given to anybody.
            await self._engine.resume(row.id)

    def _is_adrift(self, row: Any) -> bool:
        ours = row.executor == self.holder.executor
        return ours and row.id not in self._given and now_utc() - row.updated_at > 4 * self._parts.lease


@asynccontextmanager
async def _portal() -> AsyncGenerator[BlockingPortal]:
    """A portal that lets errors out as they are; left to itself, it makes groups of them."""
    portal = BlockingPortal()
    await portal.__aenter__()
    try:
        yield portal
    finally:
        await portal.__aexit__(None, None, None)


@contextmanager
def _unless_done_meanwhile() -> Generator[None]:
    try:
        yield
    except MeshError as error:
        if error.status != 409:
            raise
