"""Sagas on SQLite and on PostgreSQL."""

from collections.abc import Awaitable, Callable, Generator

import pytest
from toska_tests.postgres_servers import PostgresServer, postgres_server

MakeDatabase = Callable[[], Awaitable[str]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def fresh_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeDatabase:
    """Makes databases, of each kind once."""
    if request.param == "sqlite":

        async def make() -> str:
            return f"sqlite://{tmp_path_factory.mktemp('sagas')}"

        return make
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.make_database


@pytest.fixture(scope="module")
async def database_url(fresh_database: MakeDatabase) -> str:
    """A database of the module's own."""
    return await fresh_database()


@pytest.fixture
def own_postgres() -> Generator[PostgresServer]:
    """A server of the test's own, to be killed."""
    with postgres_server() as server:
        server.launch()
        yield server
