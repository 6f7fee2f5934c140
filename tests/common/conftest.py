"""What tests of databases share."""

from pathlib import Path

import pytest
from toska_tests.postgres_servers import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own, as `TOSKA_DATABASE_URL` names it."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.make_database()
