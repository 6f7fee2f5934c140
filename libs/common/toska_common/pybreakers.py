"""Our circuit breaker for code that knows pybreaker: its listeners, its storages, its way to be called.

    breaker = Circuit(BreakerPolicy(failure_ratio=0.5), name="payments", listeners=[Alarm()],
                      state_storage=CircuitRedisStorage(STATE_CLOSED, Redis(), namespace="payments"))
    fees = await breaker.call_async(fetch_fees, order)

It is a `pybreaker.CircuitBreaker` and raises a `CircuitBreakerError` where that would; what opens and closes it is
`toska_common.breaker`: a share of failures in a rolling window instead of failures in a row, several probes instead of
one, and what a caller cancels is no failure. Calls run beside each other, which pybreaker's lock does not let them.

A storage that several processes share makes it one circuit: each call looks there for what the others have found out.
Needs the extra `toska-common[pybreaker]`.
"""

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import pybreaker
from pybreaker import CircuitBreakerError, CircuitBreakerListener, CircuitBreakerStorage

from toska_common.breaker import BreakerPolicy, CircuitBreaker, CircuitState
from toska_common.clock import Clock, SystemClock

P = ParamSpec("P")
T = TypeVar("T")

Exclusion = type[BaseException] | Callable[[Any], bool]
"""An exception that is no failure, or what tells one."""


class Circuit(pybreaker.CircuitBreaker):
    """A circuit with pybreaker's face and the mesh's judgement.

    Args:
        policy: When it opens and closes. pybreaker's `fail_max`, `reset_timeout` and `success_threshold` show its
            `min_requests`, `cooldown_s` and `half_open_requests`.
        name: What listeners find it called.
        listeners: Told of calls and changes, as pybreaker tells them; run inside the call.
        state_storage: Where state and counters are; memory of this object if left out.
        exclude: Exceptions that are no failures, as pybreaker takes them.
        throw_new_error_on_trip: Whether the failure that opens the circuit is raised as a CircuitBreakerError.
        clock: Source of time.
    """

    def __init__(
        self,
        policy: BreakerPolicy | None = None,
        *,
        name: str | None = None,
        listeners: Sequence[CircuitBreakerListener] = (),
        state_storage: CircuitBreakerStorage | None = None,
        exclude: Iterable[Exclusion] = (),
        throw_new_error_on_trip: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.policy = policy or BreakerPolicy()
        self._clock = clock or SystemClock()
        self._circuit = CircuitBreaker(self.policy)
        super().__init__(
            fail_max=self.policy.min_requests,
            reset_timeout=self.policy.cooldown_s,
            success_threshold=self.policy.half_open_requests,
            exclude=cast("Any", exclude),
            listeners=listeners,
            state_storage=state_storage,
            name=name,
            throw_new_error_on_trip=throw_new_error_on_trip,
        )

    # -- calling

    def call(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `func`, if the circuit lets it through; a generator is watched to its end.

        Raises:
            CircuitBreakerError: The circuit is open, or this failure has opened it.
        """
        permit = self._admit(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self._report(permit, error)
            raise
        if inspect.isgenerator(result):
            return cast("T", self._watch(permit, cast("Generator[Any, Any, Any]", result)))
        self._report(permit, None)
        return result

    async def call_async(  # pyright: ignore[reportIncompatibleMethodOverride] - pybreaker's is for tornado
        self, func: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
    ) -> T:
        """Call a coroutine function, if the circuit lets it through.

        Raises:
            CircuitBreakerError: The circuit is open, or this failure has opened it.
        """
        permit = self._admit(func, args, kwargs)
        try:
            result = await func(*args, **kwargs)
        except BaseException as error:
            self._report(permit, error)
            raise
        self._report(permit, None)
        return result

    @contextmanager
    def calling(self) -> Generator[None]:
        """Count what happens in the block as one call; there may be an `await` in it.

        Raises:
            CircuitBreakerError: The circuit is open, or this failure has opened it.
        """
        permit = self._admit(self.calling, (), {})
        try:
            yield
        except BaseException as error:
            self._report(permit, error)
            raise
        self._report(permit, None)

    def __call__(self, *functions: Callable[P, T], **_: Any) -> Callable[..., Any]:
        """Decorate a function, or a coroutine function, so that it is called through the circuit."""
        if not functions:
            return self.__call__
        (function,) = functions
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await self.call_async(function, *args, **kwargs)

            return asynchronous

        @wraps(function)
        def synchronous(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.call(function, *args, **kwargs)

        return synchronous

    def _watch(self, permit: int, generator: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            result = yield from generator
        except BaseException as error:
            self._report(permit, error)
            raise
        self._report(permit, None)
        return result

    # -- switching by hand

    def open(self) -> bool:
        """Open the circuit, for a cooldown from now."""
        self._switch(CircuitState.OPEN)
        return self._throw_new_error_on_trip

    def half_open(self) -> None:
        """Let probes through."""
        self._switch(CircuitState.HALF_OPEN)

    def close(self) -> None:
        """Close the circuit, and forget what failed."""
        self._switch(CircuitState.CLOSED)

    def _switch(self, state: CircuitState) -> None:
        with self._lock:
            self._circuit.enter(state, self._clock.monotonic())
            self._publish(state)

    # -- what a call asks and reports

    @property
    def _told(self) -> tuple[CircuitBreakerListener, ...]:
        return cast("tuple[CircuitBreakerListener, ...]", self.listeners)  # pyright: ignore[reportUnknownMemberType]

    def _admit(self, func: Callable[..., Any], args: Any, kwargs: Any) -> int:
        with self._lock:
            now = self._clock.monotonic()
            self._follow(now)
            before = self._circuit.state
            permit = self._circuit.admit(now)
            if self._circuit.state is not before:
                self._publish(self._circuit.state)
        if not permit:
            raise CircuitBreakerError(f"the circuit {self.name or ''} is open, and nothing was called")
        for listener in self._told:
            listener.before_call(self, func, *args, **kwargs)
        return permit

    def _report(self, permit: int, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Exception):
            self._circuit.cancel(permit)  # cancelled, or interrupted: that says nothing about who was called
        elif error is None or not self.is_system_error(error):
            self._report_success(permit)
        elif self._report_failure(permit, error) and self._throw_new_error_on_trip:
            raise CircuitBreakerError(f"this failure has opened the circuit {self.name or ''}") from error

    def _report_success(self, permit: int) -> None:
        with self._lock:
            if self._circuit.state is CircuitState.HALF_OPEN:
                self._state_storage.increment_success_counter()
            self._state_storage.reset_counter()
            before = self._circuit.state
            self._circuit.succeed(permit, self._clock.monotonic())
            if self._circuit.state is not before:
                self._state_storage.reset_success_counter()
                self._publish(self._circuit.state)
        for listener in self._told:
            listener.success(self)

    def _report_failure(self, permit: int, error: Exception) -> bool:
        with self._lock:
            self._state_storage.increment_counter()
            for listener in self._told:
                listener.failure(self, error)
            before = self._circuit.state
            self._circuit.fail(permit, self._clock.monotonic())
            if self._circuit.state is before:
                return False
            self._publish(self._circuit.state)
            return True

    # -- the storage

    def _follow(self, now: float) -> None:
        """Take over what the storage says, where that is not what we have brought about."""
        state = CircuitState(self.state.name)  # asks the storage, and tells listeners if it is news
        if state is self._circuit.state:
            return
        since = now
        if state is CircuitState.OPEN and (opened_at := self._state_storage.opened_at) is not None:
            since = now - max(timedelta(), self._clock.now() - opened_at).total_seconds()
        self._circuit.enter(state, since)

    def _publish(self, state: CircuitState) -> None:
        """Write our state where others look, and tell the listeners."""
        if state is CircuitState.OPEN:
            self._state_storage.opened_at = self._clock.now()
        self._state_storage.state = state.value
        self.state = cast("Any", state.value)  # pybreaker's setter makes the state's object and tells listeners
