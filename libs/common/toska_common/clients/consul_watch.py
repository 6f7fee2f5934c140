"""Streams of states, made of blocking queries: they survive every outage, and a registry that has lost its memory.

Source: https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import structlog

from toska_common.errors import MeshError

log = structlog.get_logger(__name__)

T = TypeVar("T")

OutageListener = Callable[[MeshError | None], None]
"""Told the error with which a watch's outage begins, and `None` when it is over, before anything new is yielded."""

Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds, or less if there is a reason to look again (`toska_common.events.nudges`)."""

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
"""Bounds of a watch's pause after errors: doubled each time, then a random part of it (full jitter)."""


def ignore(_: MeshError | None) -> None:
    """Who does not want to know of outages."""


async def watch(
    what: str,
    query: Callable[..., Awaitable[tuple[T, int]]],
    on_outage: OutageListener,
    sleep: Sleep = anyio.sleep,
) -> AsyncGenerator[T]:
    """What a blocking query finds, now and after each change, for ever.

    Args:
        what: Names it in the log.
        query: Takes the `index` that is known; returns what there is, and its index.
        on_outage: Told of the beginning and the end of each outage.
        sleep: The pause after an error.
    """
    index, failures = 0, 0
    latest: T | None = None
    while True:
        try:
            found, answered = await query(index=index)
        except MeshError as error:
            await anyio.lowlevel.checkpoint_if_cancelled()  # as below
            if not failures:
                log.warning("registry_watch_interrupted", watch=what, error=error.detail)
                on_outage(error)
            # From the start afterwards: a registry that lost its memory counts anew and may pass our index again.
            index, failures = 0, failures + 1
            await sleep(_pause(failures))
            continue
        # A query whose answer is there cannot be cancelled any more, though nobody wants to know.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if failures:
            log.info("registry_watch_resumed", watch=what, failures=failures)
            on_outage(None)
            failures = 0
        # An index that goes back was reset, and one below 1 would make the next query return at once, for ever.
        index = 0 if answered < index else max(1, answered)
        if found != latest:
            latest = found
            yield found


def _pause(failures: int) -> float:
    longest = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 10))
    return random.uniform(RETRY_FIRST_S / 2, longest)  # noqa: S311 - spreads retries, guards nothing
