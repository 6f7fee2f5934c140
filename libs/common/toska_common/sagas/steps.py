"""Steps: an action, how often and how long it is tried, and what undoes it."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, Generic, TypeVar, get_type_hints
from uuid import UUID, uuid5

from pydantic import TypeAdapter

from toska_common.errors import ConfigurationError
from toska_common.sagas.names import check_name

In = TypeVar("In")
Out = TypeVar("Out")

_KEYS = UUID("6a9d8f1e-59e3-5a0f-9c0b-3f2d0c5d8a41")
"""Namespace of idempotency keys (RFC 9562 §5.5): of this release and every later one."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often something is tried, and the pauses between: doubled each time, and shortened at random by up to half.

    Attributes:
        attempts: All of them, the first one included.
        base: The first pause.
        longest: No pause is longer.
    """

    attempts: int = 5
    base: timedelta = timedelta(milliseconds=200)
    longest: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError("Retry: attempts: must be at least 1")
        if not timedelta() <= self.base <= self.longest:
            raise ConfigurationError("Retry: base: must not be negative, nor longer than `longest`")

    def pause_s(self, failed: int, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after `failed` attempts."""
        doubled = self.base.total_seconds() * 2.0 ** min(failed - 1, 60)
        return min(doubled, self.longest.total_seconds()) * (1 - draw() / 2)


UNDO_RETRY = Retry(attempts=20, base=timedelta(milliseconds=500), longest=timedelta(minutes=5))
"""For compensations: about an hour, after which somebody has to look."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of an action or a compensation, as it is told of itself.

    Attributes:
        saga_id: Of the saga that it is for.
        step: Name of its step.
        number: 1 for the first; one that died with its process is tried again under its number.
        idempotency_key: The same for all attempts of this action, whatever process makes them: whoever takes it
            (`Idempotency-Key`) can tell a repetition, and answer it without doing anything twice.
        undoes: The action's key, if this is a compensation; empty otherwise.
    """

    saga_id: str
    step: str
    number: int
    idempotency_key: str
    undoes: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """For a request that must have its effect once."""
        return {"idempotency-key": self.idempotency_key}


Action = Callable[[In, Attempt], Awaitable[Out]]
Undo = Callable[[In, Out | None, Attempt], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Compensation(Generic[In, Out]):
    """What undoes a step, whether it came to be or that is not known."""

    function: Undo[In, Out]
    timeout: timedelta
    retry: Retry


class Step(Generic[In, Out]):
    """Made by `@step()`; what it takes and what it returns are stored as JSON and checked against its annotations."""

    def __init__(self, name: str, action: Action[In, Out], timeout: timedelta, retry: Retry) -> None:
        self.name = check_name("step", name)
        self.action = action
        self.timeout = _positive(timeout, f"step {name!r}")
        self.retry = retry
        self.input, self.result = adapters(action, f"step {name!r}")
        self.undo: Compensation[In, Out] | None = None

    def compensation(
        self, *, timeout: timedelta = timedelta(seconds=30), retry: Retry = UNDO_RETRY
    ) -> Callable[[Undo[In, Out]], Undo[In, Out]]:
        """Declare what undoes this step: `async def (input, result, attempt) -> None`.

        `result` is `None` where it is not known whether the action had an effect: it failed, or ran out of time. Then
        `attempt.undoes`, the action's idempotency key, tells what to undo. It must do no harm if there is nothing to
        undo, nor if it is called again.

        Args:
            timeout: Of each attempt.
            retry: Attempts before the saga is `stuck`, and the pauses between.
        """
        _positive(timeout, f"compensation of {self.name!r}")

        def declare(function: Undo[In, Out]) -> Undo[In, Out]:
            if self.undo is not None:
                raise ConfigurationError(f"step {self.name!r} has a compensation already")
            self.undo = Compensation(function, timeout, retry)
            return function

        return declare

    def __repr__(self) -> str:
        return f"<Step {self.name}>"


def step(
    *, name: str | None = None, timeout: timedelta = timedelta(seconds=30), retry: Retry | None = None
) -> Callable[[Action[In, Out]], Step[In, Out]]:
    """Declare a step: `async def (input, attempt) -> result`.

    The action can be tried several times, and again after a crash: it passes `attempt.idempotency_key` on to whatever
    it changes. It raises `Refused` if it did nothing and never will.

    Args:
        name: Of the step, for ever: sagas that are under way know it by this; by default the function's, with dashes.
        timeout: Of each attempt.
        retry: Attempts before the saga turns back, and the pauses between.
    """

    def declare(action: Action[In, Out]) -> Step[In, Out]:
        return Step(name or _dashed(action), action, timeout, retry or Retry())

    return declare


def idempotency_key(service: str, saga_id: str, step_name: str, occurrence: int, *, undo: bool = False) -> str:
    """The key of one action of one saga, or of its compensation, from nothing but their names."""
    return str(uuid5(_KEYS, "\n".join((service, saga_id, step_name, str(occurrence), "undo" if undo else "do"))))


def adapters(function: Callable[..., Any], what: str) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """How the first parameter and the result of `function` are stored and checked, as it is annotated.

    Raises:
        ConfigurationError: It does not take two arguments, or is not annotated.
    """
    parameters = list(signature(function).parameters)
    hints = get_type_hints(function, include_extras=True)
    if len(parameters) != 2:
        raise ConfigurationError(f"{what}: its function takes two arguments: the input, and what runs it")
    if parameters[0] not in hints or "return" not in hints:
        raise ConfigurationError(f"{what}: annotate the input and the result: they are stored, and checked when read")
    return TypeAdapter(hints[parameters[0]]), TypeAdapter(hints["return"])


def _dashed(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "step").strip("_").replace("_", "-")


def _positive(timeout: timedelta, what: str) -> timedelta:
    if timeout <= timedelta():
        raise ConfigurationError(f"{what}: timeout: must be positive")
    return timeout
