"""The store's statements; loaded with the first use, since SQLAlchemy takes a while and much room."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from toska_router.tables import RUN_EVENTS, RUNS, TALLIES

Body = Mapping[str, Any]


async def list_runs(connection: AsyncConnection) -> list[tuple[str, str, Body]]:
    """Kind, name and body of all."""
    found = await connection.execute(sa.select(RUNS.c.kind, RUNS.c.name, RUNS.c.body).order_by(RUNS.c.name))
    return [(row.kind, row.name, row.body) for row in found]


async def find_run(connection: AsyncConnection, kind: str, name: str) -> Body | None:
    """The body of one."""
    return await connection.scalar(sa.select(RUNS.c.body).where(RUNS.c.kind == kind, RUNS.c.name == name))


async def put_run(connection: AsyncConnection, kind: str, name: str, body: Body) -> None:
    """Make one, or replace it."""
    here = RUNS.c.kind == kind, RUNS.c.name == name
    if not (await connection.execute(sa.update(RUNS).where(*here).values(body=body))).rowcount:
        await connection.execute(sa.insert(RUNS).values(kind=kind, name=name, body=body))


async def delete_run(connection: AsyncConnection, kind: str, name: str) -> None:
    """Take one away, with its history."""
    for table in (RUNS, RUN_EVENTS):
        await connection.execute(sa.delete(table).where(table.c.kind == kind, table.c.name == name))


async def append_event(connection: AsyncConnection, kind: str, name: str, body: Body, keep: int) -> None:
    """Write the next line of a history, and forget what is older than the last `keep`; numbers go on."""
    here = RUN_EVENTS.c.kind == kind, RUN_EVENTS.c.name == name
    last = await connection.scalar(sa.select(sa.func.max(RUN_EVENTS.c.sequence)).where(*here))
    sequence = (last or 0) + 1
    await connection.execute(
        sa.insert(RUN_EVENTS).values(kind=kind, name=name, sequence=sequence, body={**body, "sequence": sequence})
    )
    await connection.execute(sa.delete(RUN_EVENTS).where(*here, RUN_EVENTS.c.sequence <= sequence - keep))


async def list_events(connection: AsyncConnection, kind: str, name: str, limit: int) -> list[Body]:
    """The newest lines of a history, in their order."""
    here = RUN_EVENTS.c.kind == kind, RUN_EVENTS.c.name == name
    query = sa.select(RUN_EVENTS.c.body).where(*here).order_by(RUN_EVENTS.c.sequence.desc()).limit(limit)
    return list(reversed((await connection.scalars(query)).all()))


async def put_tally(connection: AsyncConnection, token: str, epoch: str, sequence: int, body: Body) -> None:
    """Keep what a gateway has counted, unless something newer of it is known."""
    here = TALLIES.c.token == token, TALLIES.c.epoch == epoch
    known = await connection.scalar(sa.select(TALLIES.c.sequence).where(*here))
    if known is None:
        values = {"token": token, "epoch": epoch, "sequence": sequence, "body": body}
        await connection.execute(sa.insert(TALLIES).values(**values))
    elif known < sequence:
        await connection.execute(sa.update(TALLIES).where(*here).values(sequence=sequence, body=body))


async def list_tallies(connection: AsyncConnection, token: str) -> list[Body]:
    """What each gateway has counted under a token."""
    query = sa.select(TALLIES.c.body).where(TALLIES.c.token == token).order_by(TALLIES.c.epoch)
    return list((await connection.scalars(query)).all())


async def forget_tallies(connection: AsyncConnection, but: Collection[str]) -> None:
    """Forget what was counted under any other token."""
    await connection.execute(sa.delete(TALLIES).where(TALLIES.c.token.not_in(but)))
