"""Discovery's own registry, alive: the state machine with its clock, its store and those who wait for it.

Every event goes through here. What it changed wakes its watchers at once; a registration or a key is acknowledged once
it is durable. Verdicts are stored behind the caller's back: one that is lost in a crash is given again by the next
renewal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio
import structlog
from anyio.lowlevel import checkpoint
from toska_common.clock import Clock
from toska_common.contracts.discovery import Health

from toska_discovery.catalog_txn import CatalogStage, Shown
from toska_discovery.changes import Changes, Happening
from toska_discovery.check import CheckDefinition
from toska_discovery.coordination import Coordination
from toska_discovery.errors import RegistryFull
from toska_discovery.foreign import CatalogEntry
from toska_discovery.instance import Instance, ServiceDefinition, instance_key
from toska_discovery.node import OWN_NODE, node_key
from toska_discovery.registry import Contents, Registry
from toska_discovery.session import EndReason, Session
from toska_discovery.store import SqliteStore
from toska_discovery.txn import Operation, Outcome, run
from toska_discovery.user_events import EVENTS, EventBuffer, UserEvent
from toska_discovery.watch import Watchers

log = structlog.get_logger(__name__)

SLICE = 64
"""Leases that a sweep looks at before it lets others run."""
LOGGED_EACH = 10
"""Most happenings of one event that get a line each in the log."""


@dataclass(slots=True)
class Counts:
    """What the registry has done so far, for the metrics; plain numbers, since a renewal costs little more."""

    renewals: int = 0
    probes: int = 0
    happenings: dict[Happening, int] = field(default_factory=lambda: dict.fromkeys(Happening, 0))
    sessions_ended: dict[EndReason, int] = field(default_factory=lambda: dict.fromkeys(EndReason, 0))


class EmbeddedRegistry:
    """The registry while it is open; `state` is for reading only."""

    def __init__(
        self, state: Registry, store: SqliteStore, watchers: Watchers, clock: Clock, *, max_instances: int = 200_000
    ) -> None:
        self.state = state
        self.store = store
        self.watchers = watchers
        self.counts = Counts()
        self.events = EventBuffer(state.nodes[OWN_NODE].definition.name)
        self._clock = clock
        self._max_instances = max_instances
        self._listeners: list[Callable[[Changes], None]] = []

    def on_change(self, listener: Callable[[Changes], None]) -> None:
        """Have `listener` told of every change, after the watchers; it must not change the registry in the call."""
        self._listeners.append(listener)

    async def register(
        self,
        service: ServiceDefinition,
        checks: Sequence[CheckDefinition],
        *,
        replace_checks: bool = False,
        at: datetime | None = None,
    ) -> None:
        """List an instance, as registered `at` or now; durable when this returns.

        Raises:
            RegistryFull: There is no room for one more.
            StoreUnavailable: It is listed, but would not survive a restart.
        """
        if self.state.listing.holder(service) is None:  # otherwise it takes that one's place
            self._require_room(service.id)
        now = self._clock.monotonic()
        at = at or self._clock.now()
        self._publish(self.state.register(service, checks, now, at, replace_checks=replace_checks))
        await self.store.flush()

    async def deregister(self, instance_id: str) -> None:
        """Take an instance off the list; durable when this returns."""
        self._publish(self.state.deregister(instance_id))
        await self.store.flush()

    def report(self, check_id: str, status: Health, output: str = "") -> None:
        """Take a verdict and renew the check's lease.

        Raises:
            UnknownCheck: There is none of that id.
        """
        self._publish(self.state.report(check_id, status, output, self._clock.monotonic()))
        self.counts.renewals += 1

    async def register_check(self, check: CheckDefinition, instance_id: str | None) -> None:
        """Give an instance, or with `None` the registry's own node, a check; durable when this returns.

        Raises:
            UnknownInstance: None is listed under `instance_id`.
        """
        self._publish(self.state.register_check(check, instance_id, self._clock.monotonic()))
        await self.store.flush()

    async def deregister_check(self, check_id: str) -> None:
        """Take a check away; durable when this returns."""
        self._publish(self.state.deregister_check(check_id))
        await self.store.flush()

    def judge(self, check_id: str, status: Health, output: str = "") -> None:
        """Take the verdict of whoever probes a check.

        Raises:
            UnknownCheck: There is none of that id to be probed, or no longer.
        """
        self._publish(self.state.judge(check_id, status, output, self._clock.monotonic()))
        self.counts.probes += 1

    async def register_foreign(self, entry: CatalogEntry) -> None:
        """Write into the catalog about another node; durable when this returns.

        Raises:
            UnknownInstance: A check is of an instance that the node does not have.
            RegistryFull: There is no room for one more instance or node.
        """
        state = self.state
        key = node_key(entry.node.name)
        if key not in state.nodes and len(state.nodes) > self._max_instances:
            raise _full("nodes", self._max_instances)
        if entry.service is not None:
            self._require_room(instance_key(entry.service.id, key))
        self._publish(state.register_foreign(entry, self._clock.now()))
        await self.store.flush()

    async def deregister_foreign(self, node: str, *, instance_id: str = "", check_id: str = "") -> None:
        """Take an instance or a check off another node, or else the whole node; durable when this returns."""
        self._publish(self.state.deregister_foreign(node, instance_id=instance_id, check_id=check_id))
        await self.store.flush()

    async def change(self, event: Callable[[Coordination, float], Changes]) -> None:
        """Let `event` happen to the keys and sessions at this moment; durable when this returns."""
        self._publish(event(self.state.coordination, self._clock.monotonic()))
        await self.store.flush()

    async def decide(self, event: Callable[[Coordination, float], tuple[bool, Changes]]) -> bool:
        """The same for an event that may be in vain; returns whether it was not."""
        done, changes = event(self.state.coordination, self._clock.monotonic())
        self._publish(changes)
        await self.store.flush()
        return done

    async def transact(self, operations: Sequence[Operation], shown: Shown) -> Outcome:
        """Do all of `operations` or none of them; durable when this returns."""
        state = self.state
        catalog = CatalogStage(state.listing, state.foreign, shown, self._clock.now(), self._max_instances)
        outcome = run(operations, state.coordination, self._clock.monotonic(), catalog)
        self._publish(outcome.changes)
        await self.store.flush()
        return outcome

    async def restore(self, contents: Contents) -> None:
        """Take over `contents` in place of all there is; durable when this returns."""
        self._publish(self.state.restore(contents, self._clock.monotonic()))
        await self.store.flush()

    def renew_session(self, session_id: str) -> Session | None:
        """Make a session good for one more life; `None` if there is none of the id."""
        return self.state.coordination.renew_session(session_id, self._clock.monotonic())

    def fire(self, event: UserEvent) -> UserEvent:
        """Fire an event, to be remembered if it is meant for this node.

        Raises:
            EventRefused: It is wrong, or too long.
        """
        services = (item.service for item in self.state.instances.values() if item.node == OWN_NODE)
        fired = self.events.fire(event, services)
        self.watchers.wake({EVENTS})
        return fired

    async def keep_sweeping(self, interval: timedelta) -> None:
        """Turn lapsed checks critical, remove what has been critical for too long, and end lapsed sessions, for ever.

        However many leases lapse at once, everybody else has a turn after each slice of them.
        """
        while True:
            await anyio.sleep(interval.total_seconds())
            self.sweep()
            while not self.state.is_swept:
                await checkpoint()
                self.sweep()

    def sweep(self) -> None:
        """One slice of a sweep."""
        self._publish(self.state.sweep(self._clock.monotonic(), SLICE))

    def _require_room(self, key: str) -> None:
        instances = self.state.instances
        if len(instances) >= self._max_instances and key not in instances:
            raise _full("instances", self._max_instances)

    def _publish(self, changes: Changes) -> None:
        self.store.save(changes)
        if not (changes or changes.probes):
            return
        self.watchers.wake(changes.topics)
        self.watchers.wake_keys(changes.keys)
        for listener in self._listeners:
            listener(changes)
        for happening, _ in changes.happenings:
            self.counts.happenings[happening] += 1
        _log(changes.happenings)
        for session, reason in changes.ended:
            self.counts.sessions_ended[reason] += 1
            log.info(reason.value, session=session.id, session_name=session.name, behavior=session.behavior.value)


def _full(what: str, limit: int) -> RegistryFull:
    return RegistryFull(
        f"the registry takes no more than {limit} {what}; an operator can raise TOSKA_DISCOVERY_MAX_INSTANCES"
    )


def _log(happenings: Sequence[tuple[Happening, Instance]]) -> None:
    if len(happenings) > LOGGED_EACH:
        # A line takes ten times as long as what it tells of; when very many lapse at once, that would hold up the rest.
        for happening in dict.fromkeys(happening for happening, _ in happenings):
            ids = [instance.service.id for found, instance in happenings if found is happening]
            log.info(happening.value, instances=len(ids), first=ids[:LOGGED_EACH])
        return
    for happening, instance in happenings:
        service = instance.service
        log.info(
            happening.value,
            instance_service=service.name,
            instance_id=service.id,
            address=f"{service.address}:{service.port}",
            health=instance.health.value,
        )
