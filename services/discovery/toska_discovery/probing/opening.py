"""Probing as a whole: from the registry's changes to its verdicts, while it is open."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from toska_common.clock import Clock
from toska_common.targets import TargetRules
from toska_common.tasks import supervised_tasks

from toska_discovery.changes import Changes
from toska_discovery.embedded import EmbeddedRegistry
from toska_discovery.probing.aliases import Aliases
from toska_discovery.probing.prober import Prober
from toska_discovery.probing.runners import open_runners


@dataclass(frozen=True, slots=True)
class ProbingRules:
    """What an operator lets be probed.

    Attributes:
        targets: Where nobody connects to.
        scripts: Whether scripts are run.
        at_a_time: Most probes under way.
        node_name: Of the registry's own node, for aliases that name it.
    """

    targets: TargetRules
    scripts: bool
    at_a_time: int
    node_name: str


@asynccontextmanager
async def open_probing(
    registry: EmbeddedRegistry, rules: ProbingRules, clock: Clock, on_crash: Callable[[Exception], None]
) -> AsyncGenerator[Prober]:
    """Probe the checks of `registry`, those that it has already and those to come."""
    async with (
        open_runners(rules.targets, scripts=rules.scripts) as runners,
        supervised_tasks(on_crash=on_crash) as tasks,
    ):
        prober = Prober(registry, runners, clock, at_a_time=rules.at_a_time)
        aliases = Aliases(registry.state, registry, rules.node_name)
        prober.follow(registry.state.probes)
        aliases.follow(registry.state.probes)

        def take(changes: Changes) -> None:
            prober.follow(changes.probes)
            aliases.take(changes)

        registry.on_change(take)
        tasks.start_soon(prober.run)
        tasks.start_soon(aliases.run)
        yield prober
