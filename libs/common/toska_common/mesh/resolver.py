"""Names into endpoints: a list per service, followed by blocking queries and kept while the registry is away."""

import random
import time
from collections.abc import Sequence
from contextvars import copy_context
from datetime import timedelta

import anyio
import structlog
from anyio.abc import TaskGroup

from toska_common.breaker import BreakerPolicy
from toska_common.clients.consul import ServiceEntry
from toska_common.errors import MeshError
from toska_common.mesh.endpoints import Endpoints
from toska_common.mesh.registry import RegistryLink
from toska_common.targets import TargetRules

log = structlog.get_logger(__name__)

WAIT = timedelta(seconds=55)
"""Length of a blocking query; below the minute at which some proxies cut idle connections."""
FIRST_ANSWER_S = 2.0
"""How long a call waits for the first list of a service."""
MAX_AGE_S = 2.0
"""Age at which a list that nobody follows is asked for anew."""
EMPTY_AFTER_OUTAGE_S = 15.0
"""How long an empty answer of a registry that was away is held against what was known: it may have lost its memory,
and its instances come back with their next renewals."""
HELD_POLL_S = 0.5
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 5.0


class Followed:
    """One service: its endpoints, and whether they were ever told."""

    def __init__(self, service: str, link: RegistryLink, policy: BreakerPolicy, rules: TargetRules, zone: str) -> None:
        self.endpoints = Endpoints(service, policy, rules, zone)
        self._service = service
        self._link = link
        self._told = anyio.Event()
        self._told_at = 0.0
        self._followed = False
        self._lost_at: float | None = None
        self._asking = anyio.Lock()
        self._chance = random.Random()  # noqa: S311 - spreads load, guards nothing

    def start(self, group: TaskGroup) -> None:
        """Follow the service in `group`."""
        self._followed = True
        group.start_soon(self._follow, name=f"follow {self._service}")

    async def ready(self, timeout_s: float) -> None:
        """Wait until the endpoints are known, or `timeout_s` is over."""
        if self._followed:
            if not self._told.is_set():
                with anyio.move_on_after(min(timeout_s, FIRST_ANSWER_S)):
                    await self._told.wait()
            return
        if time.monotonic() - self._told_at > MAX_AGE_S:
            with anyio.move_on_after(min(timeout_s, FIRST_ANSWER_S)):
                await self._ask_once()

    async def _follow(self) -> None:
        index, failures = 0, 0
        try:
            while True:
                try:
                    entries, answered = await self._query(index)
                except MeshError as error:
                    # From the start afterwards: a registry that restarted counts anew.
                    index, failures = 0, failures + 1
                    self._note_loss(error)
                    longest = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 10))
                    await anyio.sleep(self._chance.uniform(RETRY_FIRST_S / 2, longest))
                    continue
                failures = 0
                index = 0 if answered < index else max(1, answered)
                if not self._take(entries):
                    index = 0
                    await anyio.sleep(HELD_POLL_S)
        finally:
            self._followed = False

    async def _ask_once(self) -> None:
        async with self._asking:
            if time.monotonic() - self._told_at <= MAX_AGE_S:
                return  # somebody else asked meanwhile
            try:
                entries, _ = await self._query(0)
            except MeshError as error:
                self._note_loss(error)
                return
            self._take(entries)

    async def _query(self, index: int) -> tuple[list[ServiceEntry], int]:
        return await self._link.run(lambda consul: consul.health_service(self._service, index=index, wait=WAIT))

    def _take(self, entries: Sequence[ServiceEntry]) -> bool:
        now = time.monotonic()
        if self._lost_at is not None:
            if not entries and len(self.endpoints) and now < self._lost_at + EMPTY_AFTER_OUTAGE_S:
                return False
            log.info("registry_watch_resumed", upstream=self._service)
            self._lost_at = None
        self.endpoints.update(entries)
        self._told_at = now
        self._told.set()
        return True

    def _note_loss(self, error: MeshError) -> None:
        if self._lost_at is None:
            log.warning("registry_watch_interrupted", upstream=self._service, reason=error.detail)
        self._lost_at = time.monotonic()


class Resolver:
    """All services that this process calls. With a task group it follows them; without one it asks when it must."""

    def __init__(self, link: RegistryLink, policy: BreakerPolicy, group: TaskGroup | None, zone: str = "") -> None:
        self._zone = zone
        self._link = link
        self._policy = policy
        self._group = group
        self._context = copy_context()
        self._rules = TargetRules()
        self._followed: dict[str, Followed] = {}

    async def find(self, service: str, timeout_s: float) -> Endpoints:
        """The endpoints of `service`; empty if none are known within `timeout_s`."""
        followed = self._followed.get(service)
        if followed is None:
            followed = self._followed[service] = Followed(service, self._link, self._policy, self._rules, self._zone)
            if self._group is not None:
                # In the context of the app's start: the first caller's trace and deadline are not the watch's.
                self._context.run(followed.start, self._group)
        await followed.ready(timeout_s)
        return followed.endpoints
