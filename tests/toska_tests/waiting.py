"""Waiting for a condition instead of for a time."""

import inspect
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import anyio

Told = TypeVar("Told")

_PRESSURE = Path("/proc/pressure/cpu")

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
            raise AssertionError(f"not within {within} s: {what or _source(condition)}")
        await anyio.sleep(every)


def unhindered_s() -> float:
    """Seconds on a clock that stands while anything here waits for a processor, for how quick a program itself is.

    By the kernel's count of such times (PSI); where it has none, the clock never stands.
    """
    try:
        some = _PRESSURE.read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return time.monotonic()
    return time.monotonic() - int(some.rpartition("total=")[2]) / 1e6


async def unless_late(attempt: Callable[[], Awaitable[Told]], *, limit_s: float, within: float = 2 * PATIENT_S) -> Told:
    """What `attempt` returns, made again while it fails and took `limit_s` or longer.

    For what is only true for a while, as a circuit is open until its cooldown is over. A machine that stood still took
    the time that the program was to have, and so a late failure says nothing; one that came in time is raised.

    Raises:
        AssertionError: None succeeded `within` so many seconds.
        Exception: What an attempt failed with in time.
    """
    begun = time.monotonic()
    while True:
        started = time.monotonic()
        try:
            return await attempt()
        except Exception as error:
            now = time.monotonic()
            if now - started < limit_s:
                raise
            if now - begun > within:
                raise AssertionError(f"never in {limit_s} s: {_source(attempt)}") from error


async def in_time(attempt: Callable[[], Awaitable[Told]], *, limit_s: float, within: float = 2 * PATIENT_S) -> Told:
    """What `attempt` returns, made again until it takes less than `limit_s`, which is what it is to prove."""

    @wraps(attempt)
    async def measured() -> Told:
        started = unhindered_s()
        told = await attempt()
        took = unhindered_s() - started
        assert took < limit_s, f"it took {took} s"
        return told

    return await unless_late(measured, limit_s=limit_s, within=within)


def _source(called: Callable[..., object]) -> str:
    try:
        return inspect.getsource(called).strip()
    except TypeError:  # an object that can be called
        return repr(called)
