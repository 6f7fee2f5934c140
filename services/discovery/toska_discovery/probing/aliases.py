"""Alias checks: as well as the worst check of another instance, with those of its node, or of a node alone.

Nothing is asked: an alias is judged when what it follows changes. Aliases of aliases settle, since each takes the worst
of what it follows, and a verdict that an alias has already is no change.
"""

from collections.abc import Collection, Mapping

import anyio
from toska_common.contracts.discovery import Health

from toska_discovery.changes import Changes
from toska_discovery.check import Check, CheckDefinition, CheckKind
from toska_discovery.errors import UnknownCheck
from toska_discovery.instance import instance_key
from toska_discovery.node import OWN_NODE, node_key
from toska_discovery.probing.verdict import Judge, Verdict
from toska_discovery.registry import Registry


class Aliases:
    """Every alias check of a registry.

    Args:
        state: Where what they follow is looked up.
        judge: Who takes the verdicts.
        own_name: Of the registry's own node.
    """

    def __init__(self, state: Registry, judge: Judge, own_name: str) -> None:
        self._state = state
        self._judge = judge
        self._own_name = own_name.lower()
        self._followed: dict[str, tuple[str, str]] = {}
        self._by_instance: dict[str, set[str]] = {}
        self._by_node: dict[str, set[str]] = {}
        self._stale: dict[str, None] = {}
        self._changed = anyio.Event()

    def follow(self, probes: Mapping[str, CheckDefinition | None]) -> None:
        """Judge these checks from now on, as far as they are aliases; no more those that are `None`."""
        for check_id, definition in probes.items():
            self._forget(check_id)
            if definition is None or definition.kind is not CheckKind.ALIAS or definition.probe is None:
                continue
            probe = definition.probe
            node = OWN_NODE if probe.node.lower() in {"", self._own_name} else node_key(probe.node)
            self._followed[check_id] = (node, probe.target)
            self._by_node.setdefault(node, set()).add(check_id)
            if probe.target:
                self._by_instance.setdefault(instance_key(probe.target, node), set()).add(check_id)
            self._mark([check_id])

    def take(self, changes: Changes) -> None:
        """Hear of what happened in the registry."""
        if changes.probes:
            self.follow(changes.probes)
        if not self._followed:
            return
        for key in changes.instances:
            self._mark(self._by_instance.get(key, ()))
        for node in changes.nodes:
            self._mark(self._by_node.get(node, ()))

    async def run(self) -> None:
        """Judge for ever what has changed."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            while self._stale:
                check_id = next(iter(self._stale))
                del self._stale[check_id]
                self._look(check_id)
            # Lets the others run, should aliases follow each other in a long row.
            await anyio.lowlevel.checkpoint()

    def _look(self, check_id: str) -> None:
        followed = self._followed.get(check_id)
        if followed is None:
            return
        verdict = self._verdict(*followed)
        try:
            self._judge.judge(check_id, verdict.status, verdict.output)
        except UnknownCheck:
            self._forget(check_id)

    def _verdict(self, node_name: str, target: str) -> Verdict:
        node = self._state.nodes.get(node_name)
        if node is None:
            return Verdict(Health.CRITICAL, f"Node {node_name} could not be found")
        if not target:
            verdict = alias_verdict(node.checks)
            # The registry's own node always has one more check, which passes: that it answers.
            return Verdict(verdict.status, "All checks passing.") if not node.checks else verdict
        instance = self._state.instances.get(instance_key(target, node_name))
        if instance is None:
            return Verdict(Health.CRITICAL, f"Service {target} could not be found on node {node_name}")
        return alias_verdict({**node.checks, **instance.checks})

    def _mark(self, check_ids: Collection[str]) -> None:
        for check_id in check_ids:
            self._stale[check_id] = None
        if check_ids:
            self._changed.set()

    def _forget(self, check_id: str) -> None:
        followed = self._followed.pop(check_id, None)
        if followed is None:
            return
        node, target = followed
        for index, key in ((self._by_node, node), (self._by_instance, instance_key(target, node))):
            members = index.get(key)
            if members is not None:
                members.discard(check_id)
                if not members:
                    del index[key]


def alias_verdict(checks: Mapping[str, Check]) -> Verdict:
    """The verdict over the checks that an alias follows, in Consul's words."""
    worst: Check | None = None
    for _, check in sorted(checks.items()):
        if check.status is Health.CRITICAL:
            return _failing(check)
        if check.status is Health.WARNING and worst is None:
            worst = check
    if worst is not None:
        return _failing(worst)
    return Verdict(Health.PASSING, "All checks passing." if checks else "No checks found.")


def _failing(check: Check) -> Verdict:
    return Verdict(check.status, f'Aliased check "{check.definition.name}" failing: {check.output}')
