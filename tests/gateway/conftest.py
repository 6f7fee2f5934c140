"""A gateway for the tests of a module, by either engine; each test replaces its document by its own. And a Redis."""

from collections.abc import AsyncGenerator, Iterator

import pytest
from toska_tests.envoys import EnvoyGateway, running_envoy
from toska_tests.gateways import Gateway, running_gateway
from toska_tests.redis_servers import RedisServer, redis_server


@pytest.fixture(scope="module")
async def gateway() -> AsyncGenerator[Gateway]:
    """One supervisor with one worker for a module's tests."""
    async with running_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
async def envoy() -> AsyncGenerator[EnvoyGateway]:
    """One gateway with Envoy as its engine for a module's tests."""
    async with running_envoy() as running:
        yield running


@pytest.fixture
async def nothing_stored(gateway: Gateway) -> None:
    """An empty cache: what one test has stored outlives its routes, and is no other test's."""
    await gateway.supervisor.purge({})


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with a password, for a module's tests."""
    with redis_server(tmp_path_factory.mktemp("redis"), password="hunter2") as server:
        yield server


@pytest.fixture
async def running_redis(redis: RedisServer) -> None:
    """A running and empty Redis, whatever the test before did to it."""
    redis.kill()
    await redis.start()
