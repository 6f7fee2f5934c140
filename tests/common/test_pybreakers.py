"""Our circuit behind pybreaker's face: beside pybreaker itself, with its listeners and its storages, in Redis too."""

import asyncio
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pybreaker
import pytest
from pybreaker import CircuitBreakerError, CircuitBreakerListener, CircuitMemoryStorage, CircuitRedisStorage
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from toska_common.breaker import BreakerPolicy
from toska_common.pybreakers import Circuit
from toska_common.testing.clock import FakeClock
from toska_tests.redis_servers import RedisServer, redis_server

IN_A_ROW = BreakerPolicy(failure_ratio=1.0, min_requests=3, window_s=3600, cooldown_s=60, half_open_requests=1)
"""As near to pybreaker's own rule as ours comes: three failures and nothing else, then one probe."""


class Diary(CircuitBreakerListener):
    """Writes down all that a listener is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def before_call(self, cb: pybreaker.CircuitBreaker, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.lines.append(f"before {func.__name__}{args}")

    def success(self, cb: pybreaker.CircuitBreaker) -> None:
        self.lines.append(f"success in {cb.current_state}")

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self.lines.append(f"failure {exc!r} after {cb.fail_counter}")

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        self.lines.append(f"{cb.name}: {old_state.name} -> {new_state.name}")


def fine(order: int) -> int:
    return order


def broken(order: int) -> int:
    raise ValueError(order)


def call(breaker: pybreaker.CircuitBreaker, func: Callable[[int], int], order: int) -> str:
    """What comes of a call, for comparing."""
    try:
        return f"returned {breaker.call(func, order)}"
    except CircuitBreakerError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
        return repr(error)


def circuit(clock: FakeClock | None = None, **settings: Any) -> Circuit:
    """A circuit of three failures in a row."""
    return Circuit(settings.pop("policy", IN_A_ROW), name="payments", clock=clock or FakeClock(), **settings)


@pytest.mark.parametrize("throw", [True, False])
def test_what_callers_and_listeners_see_is_what_pybreaker_shows_them(throw: bool) -> None:
    clock = FakeClock()
    mine, theirs = Diary(), Diary()
    ours = circuit(clock, listeners=[mine], throw_new_error_on_trip=throw)
    reference = pybreaker.CircuitBreaker(
        fail_max=3, reset_timeout=60, name="payments", listeners=[theirs], throw_new_error_on_trip=throw
    )
    outcomes: list[list[str]] = []
    for breaker in (ours, reference):
        outcomes.append([call(breaker, func, order) for order, func in enumerate([broken, broken, broken, fine])])
        breaker.half_open()
        outcomes[-1] += [call(breaker, broken, 10), call(breaker, fine, 11)]
        breaker.half_open()
        outcomes[-1] += [call(breaker, fine, 12), breaker.current_state, str(breaker.fail_counter)]
    assert outcomes[0] == outcomes[1]
    assert mine.lines == theirs.lines
    assert "payments: closed -> open" in mine.lines
    assert "payments: half-open -> closed" in mine.lines


def test_a_share_of_failures_opens_it_and_not_only_failures_in_a_row() -> None:
    breaker = circuit(policy=BreakerPolicy(failure_ratio=0.5, min_requests=4))
    assert [call(breaker, func, 1) for func in (fine, broken, fine)] == ["returned 1", "ValueError(1)", "returned 1"]
    with pytest.raises(CircuitBreakerError) as caught:
        breaker.call(broken, 2)
    assert repr(caught.value.__cause__) == "ValueError(2)"
    assert breaker.current_state == pybreaker.STATE_OPEN


def test_it_opens_waits_probes_and_closes_by_its_own_clock() -> None:
    clock, diary = FakeClock(), Diary()
    breaker = circuit(clock, listeners=[diary], policy=BreakerPolicy(1.0, 2, 10, 5, 2))
    for _ in range(2):
        call(breaker, broken, 1)
    clock.advance(seconds=4.9)
    with pytest.raises(CircuitBreakerError):
        breaker.call(fine, 1)
    clock.advance(seconds=0.2)
    assert breaker.call(fine, 1) == 1
    assert (breaker.current_state, breaker.success_counter) == ("half-open", 1)
    assert breaker.call(fine, 1) == 1
    assert (breaker.current_state, breaker.success_counter) == ("closed", 0)
    changes = [line for line in diary.lines if "->" in line]
    assert changes == ["payments: closed -> open", "payments: open -> half-open", "payments: half-open -> closed"]


def test_exceptions_that_are_excluded_are_no_failures() -> None:
    def is_seven(error: BaseException) -> bool:
        return error.args == (7,)

    breaker = circuit(exclude=[KeyError, is_seven], policy=BreakerPolicy(failure_ratio=0.3, min_requests=3))
    for _ in range(5):
        assert call(breaker, broken, 7) == "ValueError(7)"
    assert breaker.current_state == "closed"
    for _ in range(3):
        call(breaker, broken, 8)
    assert breaker.current_state == "open"


async def test_coroutines_are_called_beside_each_other_and_a_cancelled_one_is_no_failure() -> None:
    breaker = circuit()
    started = asyncio.Event()

    async def slow() -> None:
        started.set()
        await asyncio.Event().wait()

    async def fails() -> None:
        raise ValueError

    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(breaker.call_async(slow))
        await started.wait()
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^$"):
                await breaker.call_async(fails)  # does not wait for the other
        hanging.cancel()
    assert breaker.fail_counter == 2
    assert breaker.current_state == "closed"
    with pytest.raises(CircuitBreakerError):
        await breaker.call_async(fails)


async def test_a_block_a_function_and_a_coroutine_function_can_be_guarded() -> None:
    breaker = circuit()

    @breaker
    def plain(order: int) -> int:
        return broken(order)

    @breaker()
    async def asynchronous(order: int) -> int:
        await asyncio.sleep(0)
        return broken(order)

    with pytest.raises(ValueError, match="1"):
        plain(1)
    with pytest.raises(ValueError, match="2"):
        await asynchronous(2)
    with pytest.raises(CircuitBreakerError), breaker.calling():
        broken(3)
    assert breaker.current_state == "open"


def test_a_generator_is_watched_to_its_end() -> None:
    breaker = circuit()

    def pages() -> Generator[int]:
        yield 1
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            list(breaker.call(pages))
    with pytest.raises(CircuitBreakerError):
        list(breaker.call(pages))
    assert breaker.current_state == "open"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for a module's tests."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def store(redis: RedisServer) -> Callable[[], CircuitRedisStorage]:
    """Makes storages of one circuit, as several processes would."""
    redis.kill()
    await redis.start()
    return lambda: CircuitRedisStorage(
        "closed", Redis(port=redis.port, retry=Retry(NoBackoff(), 0)), namespace="payments"
    )


async def test_processes_that_share_a_redis_have_one_circuit(store: Callable[[], CircuitRedisStorage]) -> None:
    clock, diary = FakeClock(), Diary()
    here = circuit(clock, state_storage=store())
    there = circuit(clock, state_storage=store(), listeners=[diary])
    for _ in range(3):
        call(here, broken, 1)
    with pytest.raises(CircuitBreakerError):
        there.call(fine, 1)
    assert diary.lines == ["payments: closed -> open"]
    clock.advance(seconds=61)
    assert there.call(fine, 1) == 1
    assert (there.current_state, here.call(fine, 2)) == ("closed", 2)


async def test_a_circuit_that_is_open_in_redis_is_open_after_a_restart_for_the_rest_of_its_cooldown(
    store: Callable[[], CircuitRedisStorage],
) -> None:
    clock = FakeClock()
    before = circuit(clock, state_storage=store())
    for _ in range(3):
        call(before, broken, 1)
    clock.advance(seconds=40)
    after = circuit(clock, state_storage=store())
    with pytest.raises(CircuitBreakerError):
        after.call(fine, 1)
    clock.advance(seconds=21)  # 61 since it opened
    assert after.call(fine, 1) == 1


async def test_pybreaker_itself_and_ours_get_along_on_one_storage(store: Callable[[], CircuitRedisStorage]) -> None:
    theirs = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=60, state_storage=store())
    ours = circuit(state_storage=store())
    for _ in range(3):
        call(theirs, broken, 1)
    with pytest.raises(CircuitBreakerError):
        ours.call(fine, 1)
    ours.close()
    assert theirs.call(fine, 1) == 1
    for _ in range(3):
        call(ours, broken, 1)
    with pytest.raises(CircuitBreakerError):
        theirs.call(fine, 1)


async def test_a_redis_that_dies_leaves_calls_passing(
    redis: RedisServer, store: Callable[[], CircuitRedisStorage], caplog: pytest.LogCaptureFixture
) -> None:
    breaker = circuit(state_storage=store())
    assert breaker.call(fine, 1) == 1
    redis.kill()
    assert breaker.call(fine, 2) == 2
    assert call(breaker, broken, 3) == "ValueError(3)"
    assert "RedisError" in caplog.text


def test_memory_is_a_storage_too() -> None:
    storage = CircuitMemoryStorage("open")
    clock = FakeClock()
    storage.opened_at = clock.now()
    with pytest.raises(CircuitBreakerError):
        circuit(clock, state_storage=storage).call(fine, 1)
