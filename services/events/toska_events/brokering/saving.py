"""Storing what groups have settled: soon, and not at once, so that it costs one commit for very many of them."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from toska_events.groups.group import Group
from toska_events.log.rows import Changes

if TYPE_CHECKING:
    from toska_events.brokering.broker import Broker

log = structlog.get_logger(__name__)

SAVE_AFTER_S = 0.02
RETRY_AFTER_S = 1.0


class Saver:
    """Collects groups that have changed, and has them stored, one save at a time."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._dirty: set[Group] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Future[None] | None = None
        self._closed = False
        self.failing = False
        """Whether the last save found no room."""

    def mark(self, group: Group) -> None:
        """A group has changed."""
        if group.durable:
            self._dirty.add(group)
            self._arm(SAVE_AFTER_S)

    def drop(self, group: Group) -> None:
        """A group is no more."""
        self._dirty.discard(group)

    def store_now(self) -> bool:
        """Hand everything that has changed to the writer; `False` if it has to end with what it has first."""
        if self._saving is not None:
            return False
        self._save()
        return True

    async def flush(self) -> None:
        """Return once everything up to now is stored, or was refused."""
        if self._saving is not None:
            await asyncio.shield(self._saving)
        self._save()
        if self._saving is not None:
            await asyncio.shield(self._saving)

    async def close(self) -> None:
        """Store what is left."""
        await self.flush()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, after: float) -> None:
        if self._timer is None and self._saving is None and not self._closed:
            self._timer = self._loop.call_later(after, self._save)

    def _save(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._saving is not None or not self._dirty:
            return
        groups, self._dirty = list(self._dirty), set()
        changes = self._collect(groups)
        self._saving = self._loop.create_future()
        self._broker.writer.submit(lambda file: file.save(changes), lambda result: self._saved(groups, changes, result))

    def _collect(self, groups: list[Group]) -> Changes:
        changes = Changes(groups=[group.row(self._broker.head) for group in groups])
        for group in groups:
            for offset, held in group.unstored.held.items():
                if held is None:
                    changes.released.append((group.id, offset))
                else:
                    changes.held.append(held)
            changes.dead += group.unstored.dead
            group.unstored.held.clear()
            group.unstored.dead.clear()
        return changes

    def _saved(self, groups: list[Group], changes: Changes, result: Exception | None) -> None:
        saving, self._saving = self._saving, None
        self.failing = isinstance(result, Exception)
        if self.failing:
            log.warning("event_groups_not_saved", retry_in_s=RETRY_AFTER_S, reason=str(result))
            self._take_back(groups, changes)
            self._arm(RETRY_AFTER_S)
        elif self._dirty:
            self._arm(SAVE_AFTER_S)
        if saving is not None:
            saving.set_result(None)

    def _take_back(self, groups: list[Group], changes: Changes) -> None:
        by_id = {group.id: group for group in groups}
        for held in changes.held:
            by_id[held.group].unstored.held.setdefault(held.offset, held)
        for group_id, offset in changes.released:
            by_id[group_id].unstored.held.setdefault(offset, None)
        for dead in reversed(changes.dead):
            by_id[dead.group].unstored.dead.insert(0, dead)
        self._dirty.update(group for group in groups if self._broker.groups.get(group.name) is group)
