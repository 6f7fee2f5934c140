"""Waiting for a condition instead of for a time."""

import inspect
import time
from collections.abc import Awaitable, Callable

import anyio

PATIENT_S = 30.0
"""How long to wait for what is to come, where coming soon is not what a test proves: machines may be busy."""


async def wait_until(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = PATIENT_S, what: str = "", every: float = 0.02
) -> float:
    """Wait until `condition()` holds, and return how many seconds that took.

    Raises:
        AssertionError: It did not within `within` seconds; `what` says what was waited for.
    """
    started = time.monotonic()
    while True:
        result = condition()
        if await result if inspect.isawaitable(result) else result:
            return time.monotonic() - started
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within} s: {what or inspect.getsource(condition).strip()}")
        await anyio.sleep(every)
