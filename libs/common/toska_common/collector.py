"""The garbage collector of a process that holds much and must not stand still.

CPython looks through every container that a process holds whenever a quarter more of them has come: with 100,000
instances in the registry that takes half a second, in which nobody is answered. What our services hold has no cycles
and goes when its last reference goes; what has cycles (errors, tasks, closed connections) is nearly always young. So
the young are looked through as ever, though not as often, and all of it only once in a long while.

This is the business of whoever owns the process, not of a service.
"""

import gc
from datetime import timedelta

from toska_common.tasks import every

YOUNG = 50_000
"""Containers that come, less those that go, between two looks at the young ones."""
_MIDDLE = 20
_NEVER = 1_000_000
FULL_INTERVAL = timedelta(hours=1)


async def keep_collector_calm(full_interval: timedelta = FULL_INTERVAL) -> None:
    """Put what is here out of the collector's sight; from now on look through everything seldom, for ever."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, _MIDDLE, _NEVER)
    await every(full_interval, gc.collect)
