"""`python -m toska_router migrate`: a database brought to the newest version without a router, and told how."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from toska_cli.run import WITH_DATABASES
from toska_common.database import Database, parse_location
from toska_common.database.upgrading import run_migrate
from toska_common.errors import ConfigurationError
from toska_router import migrations, tables
from toska_router.__main__ import main
from toska_router.store import MIGRATIONS
from toska_tests.postgres_servers import PostgresServer
from toska_tests.programs import finished


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.make_database()


async def said(url: str, tmp_path: Path, *arguments: str) -> str:
    return await run_migrate(parse_location(url, service="router", home=tmp_path), MIGRATIONS, arguments)


async def make_older(url: str, tmp_path: Path) -> None:
    """Leave the database as the first release had it, with a revision in it."""
    database = Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS)

    async def change(connection: AsyncConnection) -> None:
        for table in (tables.RUNS, tables.RUN_EVENTS, tables.TALLIES):
            await connection.execute(sa.schema.DropTable(table))
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
        await connection.execute(sa.text("INSERT INTO revisions VALUES (7, '2026-01-02 03:04:05', 'api', '', '', '')"))

    async with database.writing() as connection:
        await change(connection)
    await database.aclose()


async def versions(url: str, tmp_path: Path) -> tuple[str, int]:
    """The version of the tables and the newest revision, as a router sees them that does not migrate."""
    database = Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS)
    async with database.reading() as connection:
        version: str = (await connection.execute(sa.text("SELECT version_num FROM alembic_version"))).scalar_one()
        newest = await connection.scalar(sa.select(sa.func.max(tables.REVISIONS.c.revision)))
        assert await connection.scalar(sa.select(sa.func.count()).select_from(tables.TALLIES)) == 0
    await database.aclose()
    return version, newest or 0


async def test_tables_are_made_migrated_and_left_alone(url: str, tmp_path: Path) -> None:
    assert (await said(url, tmp_path)).endswith(f": tables made, at {migrations.HEAD}\n")
    assert "nothing to do" in await said(url, tmp_path)
    await make_older(url, tmp_path)
    told = await said(url, tmp_path)
    assert f": migrated from 0001 to {migrations.HEAD}\n" in told
    assert "  0002  Rollouts and experiments, their history, and what gateways have counted.\n" in told
    assert await versions(url, tmp_path) == (migrations.HEAD, 7)
    assert "0001" not in await said(url, tmp_path)


@pytest.mark.parametrize("older", [False, True])
async def test_the_statements_do_the_same_by_hand(
    url: str, older: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if older:
        await make_older(url, tmp_path)
    script = await said(url, tmp_path, "--sql")
    assert ("CREATE TABLE revisions" in script) is not older
    assert "CREATE TABLE tallies" in script
    if url.startswith("sqlite"):
        assert older or not (tmp_path / "router.sqlite").exists()
        import sqlite3

        with sqlite3.connect(tmp_path / "router.sqlite", isolation_level=None) as connection:
            connection.executescript(script)
        connection.close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        await server.execute(script, url)
    assert await versions(url, tmp_path) == (migrations.HEAD, 7 if older else 0)
    assert "nothing to do" in await said(url, tmp_path, "--sql")


async def test_tables_of_a_newer_release_are_left_alone(url: str, tmp_path: Path) -> None:
    await said(url, tmp_path)
    database = Database(parse_location(url, service="router", home=tmp_path), migrations=MIGRATIONS)
    async with database.writing() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    await database.aclose()
    for arguments in ((), ("--sql",)):
        with pytest.raises(ConfigurationError, match=r"another release \(9999\); run the release that made them"):
            await said(url, tmp_path, *arguments)


async def test_who_may_not_change_tables_is_told_who_can(postgres: PostgresServer, tmp_path: Path) -> None:
    url = await postgres.make_database()
    name = f"reader_{url.rpartition('_')[2]}"
    await said(url, tmp_path)
    await make_older(url, tmp_path)
    for statement in (
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw'",
        f"GRANT USAGE ON SCHEMA toska_router TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA toska_router TO {name}",
    ):
        await postgres.execute(statement, url)
    weak = url.replace(url.partition("//")[2].partition("@")[0], f"{name}:pw")
    with pytest.raises(ConfigurationError, match=r"permission denied.*python -m toska_router migrate"):
        await said(weak, tmp_path)
    await said(url, tmp_path)
    await postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA toska_router TO {name}", url)
    assert await versions(weak, tmp_path) == (migrations.HEAD, 7)


async def test_the_command_says_what_it_did_and_its_exit_status_how_it_went(tmp_path: Path) -> None:
    async def run(url: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        settings = (f"TOSKA_DATABASE_URL={url}", f"TOSKA_HOME={tmp_path}/home")
        return await finished(["env", *settings, sys.executable, "-m", "toska_router", *words])

    made = await run(f"sqlite://{tmp_path}/db", "migrate")
    assert made.returncode == 0, made.stderr
    assert made.stdout.decode() == f"SQLite in {tmp_path}/db/router.sqlite: tables made, at {migrations.HEAD}\n"
    away = await run("postgresql://toska:xxxxxxxx@127.0.0.1:1/mesh", "migrate", "--sql")
    assert away.returncode == 1
    assert b"PostgreSQL at 127.0.0.1:1/mesh" in away.stderr
    assert b"xxxxxxxx" not in away.stderr


def test_a_word_that_means_nothing_starts_no_router(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sing"]) == 2
    assert "'sing' is nothing to do" in capsys.readouterr().err


def test_every_service_with_migrations_is_migrated_by_the_command() -> None:
    services = Path(__file__).parents[2] / "services"
    assert {found.parent.parent.name for found in services.glob("*/toska_*/migrations")} == {*WITH_DATABASES}
