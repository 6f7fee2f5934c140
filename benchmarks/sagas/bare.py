"""A process that runs workflows of DBOS with three steps: `python -m benchmarks.sagas.bare URL COUNT AT_ONCE`.

As DBOS's manual has it, but for two things that ours has as well, so that they make no difference: JSON instead of
pickles, and SQLite with a write-ahead log that is synced at each commit.
"""

import asyncio
from itertools import count
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from sqlalchemy import event

from benchmarks.sagas.pacing import arguments, pace


@DBOS.step(name="reserve")
async def reserve(order: dict[str, str]) -> dict[str, str]:
    """Takes no time itself."""
    return {"number": order["id"]}


@DBOS.step(name="charge")
async def charge(order: dict[str, str]) -> dict[str, str]:
    """As little."""
    return {"number": order["id"]}


@DBOS.step(name="ship")
async def ship(order: dict[str, str]) -> dict[str, str]:
    """As little."""
    return {"number": order["id"]}


@DBOS.workflow(name="place-order")
async def place_order(order: dict[str, str]) -> dict[str, str]:
    """Three steps."""
    await reserve(order)
    receipt = await charge(order)
    await ship(order)
    return receipt


def _config(url: str) -> DBOSConfig:
    config: DBOSConfig = {
        "name": "bench",
        "serializer": DBOSPortableJSONSerializer(),
        "enable_otlp": False,
        "log_level": "ERROR",
    }
    if url.startswith("sqlite"):
        config["system_database_engine"] = _sqlite(url)
    else:
        config["system_database_url"] = url.replace("postgresql://", "postgresql+psycopg://")
    return config


def _sqlite(url: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{url.removeprefix('sqlite://')}/bare.sqlite")  # the folder has a slash before

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction] - called by SQLAlchemy
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


async def _main(url: str, workflows: int, at_once: int) -> None:
    DBOS(config=_config(url))
    DBOS.launch()
    ids = count()

    async def one(_: int) -> None:
        handle = await DBOS.start_workflow_async(place_order, {"id": f"o-{next(ids)}", "amount": "19.90"})
        await handle.get_result()

    try:
        print((await pace(one, workflows, at_once)).model_dump_json())
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(_main(*arguments()))
