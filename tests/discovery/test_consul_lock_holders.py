"""Locks as their holders see them: who waits gets it, who loses it is told, and who was paused can do no harm."""

import os
import signal
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from aiohttp import web
from toska_common.clients.consul import ConsulClient, KVPair
from toska_common.clients.consul_lock import Lock, LockLost
from toska_common.errors import NotFound
from toska_tests.apps import lock_holder
from toska_tests.discovery_rig import RunningRegistry
from toska_tests.ports import free_port
from toska_tests.programs import running
from toska_tests.registries import wire_to
from toska_tests.waiting import wait_until

NO_DELAY = timedelta()


@pytest.fixture
def key() -> str:
    """The key of a lock that no other test has."""
    return f"l-{uuid.uuid4().hex[:12]}/lock"


async def entry(consul: ConsulClient, key: str) -> KVPair:
    found, _ = await consul.kv_get(key)
    assert found is not None
    return found


async def test_a_session_is_created_renewed_and_destroyed(consul: ConsulClient, key: str) -> None:
    session = await consul.create_session(name="n", ttl=timedelta(seconds=10), lock_delay=NO_DELAY)
    held = await consul.kv_acquire(key, b"v", session)
    assert held is not None
    assert (held.session, held.lock_index) == (session, 1)
    await consul.renew_session(session)
    other = await consul.create_session(lock_delay=NO_DELAY, delete=True)
    assert await consul.kv_acquire(key, b"w", other) is None
    assert not await consul.kv_release(key, b"w", other)
    assert await consul.kv_release(key, b"x", session)
    assert (await consul.kv_acquire(key, b"w", other)) is not None
    await consul.destroy_session(other)
    assert (await consul.kv_get(key))[0] is None
    await consul.destroy_session(session)
    with pytest.raises(NotFound):
        await consul.renew_session(session)
    with pytest.raises(NotFound):
        await consul.kv_acquire(key, b"v", session)
    await consul.destroy_session(session)


async def test_who_waits_gets_the_lock_when_it_is_released_with_a_higher_fence(consul: ConsulClient, key: str) -> None:
    order: list[str] = []

    async def wait() -> None:
        async with Lock.hold(consul, key, value=b"second") as second:
            order.append("second")
            assert second.fence > first.fence

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group, Lock.hold(consul, key, value=b"first") as first:
            assert first.is_held
            assert (await entry(consul, key)).value == b"first"
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()  # the other one waits for the registry
            order.append("first")
    assert order == ["first", "second"]
    assert not first.is_held
    assert (await entry(consul, key)).session == ""


async def test_five_contenders_are_never_inside_together(consul: ConsulClient, key: str) -> None:
    inside, fences = 0, list[int]()

    async def contend() -> None:
        nonlocal inside
        for _ in range(3):
            async with Lock.hold(consul, key) as lock:
                inside += 1
                assert inside == 1
                fences.append(lock.fence)
                await consul.kv_get(key)  # others have their turn meanwhile
                inside -= 1

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(contend)
    assert fences == sorted(set(fences))
    assert len(fences) == 15


async def test_a_block_is_cancelled_when_its_lock_is_lost(consul: ConsulClient, key: str) -> None:
    with anyio.fail_after(20), pytest.raises(LockLost, match="no longer"):
        async with Lock.hold(consul, key, lock_delay=NO_DELAY) as lock:
            await consul.destroy_session((await entry(consul, key)).session)
            await lock.lost.wait()
            await anyio.sleep_forever()


async def test_a_block_may_go_on_when_told_instead(consul: ConsulClient, key: str) -> None:
    reached = False
    with anyio.fail_after(20), pytest.raises(LockLost):
        async with Lock.hold(consul, key, lock_delay=NO_DELAY, cancel=False) as lock:
            await consul.destroy_session((await entry(consul, key)).session)
            await lock.lost.wait()
            await anyio.lowlevel.checkpoint()
            assert not lock.is_held
            reached = True
    assert reached


async def test_an_error_of_the_block_is_raised_as_it_is_and_the_lock_released(consul: ConsulClient, key: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Lock.hold(consul, key):
            _ = 1 / 0
    assert (await entry(consul, key)).session == ""


async def test_a_cancelled_block_releases_its_lock(consul: ConsulClient, key: str) -> None:
    with anyio.move_on_after(5) as scope:
        async with Lock.hold(consul, key):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (await entry(consul, key)).session == ""


async def test_a_holder_that_cannot_reach_the_registry_for_a_ttl_takes_its_lock_for_lost(
    consul: ConsulClient, registry: RunningRegistry, key: str
) -> None:
    del consul
    async with wire_to(registry.url) as wire, ConsulClient.open(wire.url, token=registry.token) as cut_off:
        lock = Lock(cut_off, key, b"", timedelta(seconds=1), cancel=True)
        # A registry keeps a session for 10 s at least; the holder counts by itself.
        lock._session = await cut_off.create_session(ttl=timedelta(seconds=10), lock_delay=NO_DELAY)  # pyright: ignore[reportPrivateUsage] - a TTL of one second
        lock._good_until = anyio.current_time() + 1  # pyright: ignore[reportPrivateUsage] - see above
        await lock._acquire()  # pyright: ignore[reportPrivateUsage] - see above
        assert lock.is_held
        await wire.cut()
        with anyio.fail_after(20):
            await lock._keep()  # pyright: ignore[reportPrivateUsage] - see above
        assert lock.lost.is_set()
        assert not lock.is_held


class Store:
    """A store that refuses whoever comes with a lower fencing value than it has seen."""

    def __init__(self) -> None:
        self.accepted: list[tuple[int, str]] = []
        self.refused: list[tuple[int, str]] = []

    def write(self, fence: int, writer: str) -> bool:
        newest = self.accepted[-1][0] if self.accepted else 0
        (self.accepted if fence >= newest else self.refused).append((fence, writer))
        return fence >= newest

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str]:
        """Take writes by `PUT ?fence=…&writer=…`; yields the URL."""

        async def handle(request: web.Request) -> web.Response:
            written = self.write(int(request.query["fence"]), request.query["writer"])
            return web.Response(status=200 if written else 409)

        app = web.Application()
        app.router.add_put("/", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        try:
            port = free_port()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield f"http://127.0.0.1:{port}/"
        finally:
            await runner.cleanup()


async def test_a_holder_that_was_paused_and_does_not_know_that_it_lost_its_lock_is_fenced_off(
    consul: ConsulClient, registry: RunningRegistry, key: str, tmp_path: Path
) -> None:
    store = Store()
    async with store.serving() as url:
        environment = {"REGISTRY": registry.url, "TOKEN": registry.token, "KEY": key, "STORE": url}
        with running([sys.executable, lock_holder.__file__], tmp_path, environment=environment) as holder:
            await wait_until(lambda: len(store.accepted) > 3 or holder.returncode is not None)
            assert holder.returncode is None, holder.stderr
            holder.send(signal.SIGSTOP)
            async with Lock.hold(consul, key) as lock:  # its check lapses, its session ends, its delay passes
                assert lock.fence > store.accepted[-1][0]
                assert store.write(lock.fence, "second")
                writes = len(store.accepted)
                os.kill(holder.pid, signal.SIGCONT)
                await wait_until(lambda: bool(store.refused))
                assert lock.is_held
            assert await holder.exit_code() == 0, holder.stderr
    assert len(store.accepted) == writes
    assert {writer for _, writer in store.refused} == {"holder"}
    assert [fence for fence, _ in store.accepted] == sorted(fence for fence, _ in store.accepted)
    assert holder.stdout.endswith("refused\n")
