"""A lock in the registry: one holder at a time in the whole mesh, who knows when it is the holder no longer.

    waiting ──acquired──▶ held ──block ends──▶ released
                           │ not renewed for a TTL, or the registry shows another holder
                           ▼
                          lost: the block is cancelled and `LockLost` raised

No lock service can stop a holder that is not running: one that was paused for longer than its TTL wakes up in the
middle of its work while another holds the lock. What must not be done twice has to check the fencing value: it rises
with each new holder, so whoever stores things refuses a writer with a lower one than it has seen.

    async with Lock.hold(consul, "locks/migration") as lock:
        await store.write(rows, fence=lock.fence)
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Self

import anyio
import structlog

from toska_common.clients.consul import ConsulClient
from toska_common.errors import Conflict, MeshError, NotFound

log = structlog.get_logger(__name__)

RENEWALS_PER_TTL = 3
RETRY_S = 0.25
"""Pause after an error, and between looks at a lock whose delay is not over, which no watch tells of."""
WATCH = timedelta(minutes=5)
CLEANUP_S = 2.0


class LockLost(Conflict):
    """The lock was taken away, or may have been: the registry could not be asked for a whole TTL."""

    code, title = "lock-lost", "Lock lost"


class Lock:
    """A lock that was acquired.

    Attributes:
        key: The key that it is on.
        fence: Higher than that of every holder before.
        lost: Set when the lock is lost.
    """

    def __init__(self, consul: ConsulClient, key: str, value: bytes, ttl: timedelta, *, cancel: bool) -> None:
        self.key = key
        self.fence = 0
        self.lost = anyio.Event()
        self._consul = consul
        self._value = value
        self._ttl_s = ttl.total_seconds()
        self._cancel = cancel
        self._block = anyio.CancelScope()
        self._session = self._reason = ""
        self._index = 0
        self._good_until = 0.0

    @classmethod
    @asynccontextmanager
    async def hold(
        cls,
        consul: ConsulClient,
        key: str,
        *,
        value: bytes = b"",
        ttl: timedelta = timedelta(seconds=15),
        lock_delay: timedelta = timedelta(seconds=15),
        checks: Sequence[str] = (),
        cancel: bool = True,
    ) -> AsyncGenerator[Self]:
        """Wait for the lock and hold it for the block.

        Args:
            consul: Stays open for longer than the block.
            key: What the lock is on; it stays when the lock is released, so that `fence` goes on rising.
            value: Written to the key, to tell who holds it.
            ttl: The lock is lost when it could not be renewed for so long; 10 s at least.
            lock_delay: For how long nobody gets it after it was lost.
            checks: Ids of checks on the same agent with which it is lost as well, such as that of the own instance.
            cancel: Whether the block is cancelled on loss, rather than only told by `lost`.

        Raises:
            LockLost: It was lost before the block had ended.
            MeshError: The registry fails while the lock is waited for.
        """
        lock = cls(consul, key, value, ttl, cancel=cancel)
        await lock._open(lock_delay, checks)
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                with lock._block:
                    try:
                        group.start_soon(lock._keep)
                        await lock._acquire()
                        group.start_soon(lock._watch)
                        yield lock
                    except Exception as error:  # noqa: BLE001 - raised below, since the task group would wrap it
                        failure = error
                group.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(CLEANUP_S, shield=True):
                await lock._close()
        if failure is not None:
            raise failure
        if lock.lost.is_set():
            raise LockLost(f"the lock {key} was lost: {lock._reason}", key=key)

    @property
    def is_held(self) -> bool:
        """Whether it is held as far as can be known here, without asking: renewed within the last TTL."""
        return bool(self.fence) and not self.lost.is_set() and time.monotonic() < self._good_until

    async def _open(self, lock_delay: timedelta, checks: Sequence[str]) -> None:
        self._good_until = time.monotonic() + self._ttl_s  # from before it is asked for, to be on the safe side
        ttl = timedelta(seconds=self._ttl_s)
        self._session = await self._consul.create_session(
            name=f"lock {self.key}", ttl=ttl, lock_delay=lock_delay, checks=checks
        )

    async def _acquire(self) -> None:
        while True:
            held = await self._consul.kv_acquire(self.key, self._value, self._session)
            if held is not None:
                self.fence, self._index = held.lock_index, held.modify_index
                return
            current, index = await self._consul.kv_get(self.key)
            if current is not None and current.session:
                await self._consul.kv_get(self.key, index=index, wait=WATCH)
            else:
                await anyio.sleep(RETRY_S)

    async def _keep(self) -> None:
        """Renew the session until the lock is given up or lost."""
        pause = self._ttl_s / RENEWALS_PER_TTL
        while True:
            left = self._good_until - time.monotonic()
            if left <= 0:
                self._lose("the registry could not be asked for a whole TTL")
                return
            await anyio.sleep(min(pause, left))
            asked = time.monotonic()
            try:
                with anyio.move_on_after(max(0.0, self._good_until - asked)):
                    await self._consul.renew_session(self._session)
                    self._good_until = asked + self._ttl_s
                pause = self._ttl_s / RENEWALS_PER_TTL
            except NotFound:
                self._lose("its session ended")
                return
            except MeshError as error:
                log.warning("lock_renewal_failed", key=self.key, error=error.detail)
                pause = RETRY_S

    async def _watch(self) -> None:
        """Look out for the registry showing another holder, or none."""
        index = self._index
        while True:
            try:
                current, index = await self._consul.kv_get(self.key, index=index, wait=WATCH)
            except MeshError:
                index = 0
                await anyio.sleep(RETRY_S)  # whether that lasts for too long is for the renewals to say
                continue
            if current is None or (current.session != self._session and current.modify_index >= self._index):
                self._lose("it is no longer this holder's in the registry")
                return

    def _lose(self, reason: str) -> None:
        if self.lost.is_set():
            return
        log.warning("lock_lost", key=self.key, fence=self.fence, reason=reason)
        self._reason = reason
        self.lost.set()
        if self._cancel or not self.fence:
            self._block.cancel()

    async def _close(self) -> None:
        # Given back before its session ends, so that nobody has to wait for its delay.
        for end in (self._release, partial(self._consul.destroy_session, self._session)):
            try:
                await end()
            except MeshError as error:
                log.warning("lock_release_failed", key=self.key, error=error.detail)
        self._good_until = 0.0

    async def _release(self) -> None:
        if self.fence and not self.lost.is_set():
            await self._consul.kv_release(self.key, self._value, self._session)
