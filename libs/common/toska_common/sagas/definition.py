"""What a saga is: a name, a version, and a function that runs steps one after another."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Generic

from toska_common.errors import ConfigurationError
from toska_common.sagas.names import check_name
from toska_common.sagas.steps import In, Out, adapters

if TYPE_CHECKING:
    from toska_common.sagas.runs import Run

DEFAULT_TIMEOUT = timedelta(hours=1)


class Saga(Generic[In, Out]):
    """Made by `@saga("place-order")`."""

    def __init__(
        self, name: str, version: int, timeout: timedelta | None, function: "Callable[[In, Run], Awaitable[Out]]"
    ) -> None:
        self.name = check_name("saga", name)
        if version < 1:
            raise ConfigurationError(f"saga {name!r}: version: must be at least 1")
        if timeout is not None and timeout <= timedelta():
            raise ConfigurationError(f"saga {name!r}: timeout: must be positive")
        self.version = version
        self.timeout = timeout
        self.function = function
        self.input, self.result = adapters(function, f"saga {name!r}")

    def __repr__(self) -> str:
        return f"<Saga {self.name} version {self.version}>"


def saga(
    name: str, *, version: int = 1, timeout: timedelta | None = DEFAULT_TIMEOUT
) -> "Callable[[Callable[[In, Run], Awaitable[Out]]], Saga[In, Out]]":
    """Declare a saga: `async def (input, run) -> result`, which has its steps done by `await run(step, input)`.

    After a crash the function is called again from its beginning, and each step that was done answers at once with
    what it returned. So all that differs from one time to the next (the clock, randomness, I/O) belongs into steps;
    and a function that comes to call other steps than before needs a new `version`, with the old one kept for as long
    as sagas of it are under way.

    Args:
        name: Of the saga, for ever.
        version: Of its steps and of its input's form.
        timeout: After which it turns back; compensations have all the time they need.
    """

    def declare(function: "Callable[[In, Run], Awaitable[Out]]") -> Saga[In, Out]:
        return Saga(name, version, timeout, function)

    return declare
