"""A service's database, on SQLite and on PostgreSQL: made, migrated, shared, and away."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from toska_common.database import Database, DatabaseUnavailable, parse_location
from toska_common.database.location import check_database_url
from toska_common.errors import ConfigurationError
from toska_router import tables
from toska_tests.postgres_servers import PASSWORD, PostgresServer
from toska_tests.waiting import wait_until

MIGRATIONS = "toska_router.migrations"
MakeUrl = Callable[[], Awaitable[str]]


@pytest.fixture
async def databases(url: str, tmp_path: Path) -> AsyncGenerator[Callable[[], Database]]:
    """Makes databases at the same place, as two processes would."""
    made: list[Database] = []

    def make() -> Database:
        made.append(Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS))
        return made[-1]

    yield make
    for database in made:
        await database.aclose()


def _revision(number: int) -> sa.Insert:
    words = {"source": "api", "credential": "admin", "actor": "", "reason": ""}
    return tables.REVISIONS.insert().values(revision=number, at=datetime.now(UTC), **words)


async def _count(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(tables.REVISIONS)) or 0


async def test_tables_are_made_once_however_many_start_at_once(databases: Callable[[], Database]) -> None:
    several = [databases() for _ in range(3)]
    async with anyio.create_task_group() as group:
        for database in several:
            group.start_soon(database.open)
    async with several[0].writing() as connection:
        await connection.execute(_revision(1))
    assert [await _count(database) for database in several] == [1, 1, 1]


async def test_a_block_that_fails_changes_nothing(databases: Callable[[], Database]) -> None:
    database = databases()
    with pytest.raises(LookupError):
        async with database.writing() as connection:
            await connection.execute(_revision(1))
            raise LookupError
    assert await _count(database) == 0


async def test_what_is_read_in_one_transaction_held_at_one_moment(databases: Callable[[], Database]) -> None:
    mine, theirs = databases(), databases()
    count = sa.select(sa.func.count()).select_from(tables.REVISIONS)
    assert await _count(mine) == 0
    async with mine.reading() as connection:
        assert await connection.scalar(count) == 0
        async with theirs.writing() as other:
            await other.execute(_revision(1))
        assert await connection.scalar(count) == 0
    assert await _count(mine) == 1


async def test_moments_come_back_as_they_were_and_with_their_zone(databases: Callable[[], Database]) -> None:
    database = databases()
    at = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
    async with database.writing() as connection:
        await connection.execute(_revision(1).values(at=at))
    async with database.reading() as connection:
        assert await connection.scalar(sa.select(tables.REVISIONS.c.at)) == at


async def test_writers_exclude_one_another(databases: Callable[[], Database]) -> None:
    first, second = databases(), databases()

    async def add(database: Database) -> None:
        for _ in range(10):
            async with database.writing() as connection:
                newest = await connection.scalar(sa.select(sa.func.max(tables.REVISIONS.c.revision))) or 0
                await connection.execute(_revision(newest + 1))

    async with anyio.create_task_group() as group:
        group.start_soon(add, first)
        group.start_soon(add, second)
    assert await _count(first) == 20


async def test_a_change_of_another_is_noticed_at_once(databases: Callable[[], Database]) -> None:
    watching, changing = databases(), databases()
    await watching.open()
    seen: list[int] = []
    async with anyio.create_task_group() as group:

        async def look() -> None:
            seen.append(await _count(watching))

        def on_change() -> None:
            group.start_soon(look)

        group.start_soon(watching.watch, on_change)
        await wait_until(lambda: not seen or seen[-1] == 0, what="it watches")
        async with changing.writing() as connection:
            await connection.execute(_revision(1))
        await wait_until(lambda: bool(seen) and seen[-1] == 1, what="the change was noticed")
        group.cancel_scope.cancel()


async def test_tables_of_another_release_are_left_alone(databases: Callable[[], Database]) -> None:
    async with databases().writing() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="another release"):
        await databases().open()


async def test_the_steps_make_the_same_tables_as_a_new_database_has(databases: Callable[[], Database]) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from toska_common.database.migrating import migrate, scripts
    from toska_router import migrations

    assert migrations.__file__ is not None
    folder = Path(migrations.__file__).parent
    assert scripts(folder).get_current_head() == migrations.HEAD

    database = databases()
    async with database.writing() as connection:

        def from_the_first_step(plain: sa.Connection) -> list[object]:
            tables.METADATA.drop_all(plain)
            plain.execute(sa.text("DELETE FROM alembic_version"))
            migrate(plain, database.location, folder, "base")
            assert plain.scalar(sa.text("SELECT version_num FROM alembic_version")) == migrations.HEAD
            return compare_metadata(MigrationContext.configure(plain), tables.METADATA)

        assert await connection.run_sync(from_the_first_step) == []


async def test_postgresql_that_went_away_is_said_and_comes_back(postgres: PostgresServer, tmp_path: Path) -> None:
    location = parse_location(await postgres.make_database(), service="router", home=tmp_path)
    database = Database(location, migrations=MIGRATIONS)
    await database.open()
    postgres.kill()
    try:
        with pytest.raises(DatabaseUnavailable) as refusal:
            await _count(database)
    finally:
        await postgres.start()
    assert refusal.value.headers == {"retry-after": "1"}
    assert PASSWORD not in refusal.value.detail
    assert await _count(database) == 0
    await database.aclose()


async def test_sqlite_is_its_owner_s_alone_and_absent_until_it_is_used(tmp_path: Path) -> None:
    database = Database(parse_location("embedded://", service="router", home=tmp_path), migrations=MIGRATIONS)
    assert database.is_absent()
    await database.open()
    assert not database.is_absent()
    await database.aclose()
    assert (tmp_path / "router" / "router.sqlite").stat().st_mode & 0o777 == 0o600


async def test_sqlite_s_file_that_is_taken_away_or_replaced_takes_no_changes_along(tmp_path: Path) -> None:
    database = Database(parse_location(f"sqlite://{tmp_path}", service="router", home=tmp_path), migrations=MIGRATIONS)
    file, aside = tmp_path / "router.sqlite", tmp_path / "aside"
    async with database.writing() as connection:
        await connection.execute(_revision(1))
    file.rename(aside)
    for there in (False, True):
        if there:
            file.touch()
        with pytest.raises(DatabaseUnavailable, match="not there any more"):
            async with database.writing() as connection:
                await connection.execute(_revision(2))
    aside.rename(file)
    assert await _count(database) == 1
    await database.aclose()


@pytest.mark.parametrize(
    "wrong",
    ["mysql://a/b", "sqlite://relative", "sqlite:///", "postgresql://host", "postgresql://host:word/x", "", "oracle"],
)
def test_a_url_that_names_no_database_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"write|name|[Pp]ort"):
        check_database_url(wrong)


def test_a_location_is_told_without_its_password(tmp_path: Path) -> None:
    location = parse_location("postgresql://me:secret@db.example:6432/mesh", service="router", home=tmp_path)
    assert str(location) == "PostgreSQL at db.example:6432/mesh, schema toska_router"
    assert "secret" not in repr(location)


def test_nobody_loads_sqlalchemy_before_it_is_needed() -> None:
    script = (
        "import sys, toska_common, toska_common.settings, toska_common.database, toska_router.app; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "alembic", "aiosqlite", "asyncpg"} & set(loaded)


async def test_a_value_that_postgresql_does_not_take_is_no_absence_of_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = await postgres.make_database()
    database = Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS)
    with pytest.raises(DBAPIError, match="0x00"):
        async with database.writing() as connection:
            await connection.execute(_revision(1).values(reason="a\0b"))
    async with database.writing() as connection:
        await connection.execute(_revision(1))
    await database.aclose()
