"""The statements behind `store`, each in a transaction of the caller's; loaded when the database is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from toska_common.contracts.revisions import Kind, ResourceChange, ResourceRevision, Revision
from toska_common.contracts.routing import RoutingDocument
from toska_common.routing.written import written, written_version

from toska_router.documents import KINDS, Change, build_document
from toska_router.stored import Author, News, Stored, readable
from toska_router.tables import CHANGES, RESOURCES, REVISIONS

KEPT = 10_000
"""Revisions that can be shown and gone back to; older ones are let go of."""
_LET_GO_EVERY = 100


async def load(connection: AsyncConnection) -> Stored:
    """Everything that holds now."""
    resources: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, name, body in await connection.execute(sa.select(RESOURCES.c.kind, RESOURCES.c.name, RESOURCES.c.body)):
        if kind in resources:
            resources[kind][name] = _read(kind, name, body)
    return Stored(await newest(connection), build_document(resources))


async def newest(connection: AsyncConnection) -> int:
    """The newest revision; 0 before the first."""
    return await connection.scalar(sa.select(sa.func.max(REVISIONS.c.revision))) or 0


async def news_since(connection: AsyncConnection, revision: int) -> News:
    """What has changed since `revision`, the newest change of each name only."""
    found = await connection.execute(
        sa.select(CHANGES.c.kind, CHANGES.c.name, CHANGES.c.body)
        .where(CHANGES.c.revision > revision)
        .order_by(CHANGES.c.revision)
    )
    latest: dict[tuple[Kind, str], Any] = {(kind, name): body for kind, name, body in found if kind in KINDS}
    changes = [Change(kind, name, _read(kind, name, body)) for (kind, name), body in latest.items()]
    return News(await newest(connection), changes)


async def append(
    connection: AsyncConnection, revision: int, changes: Sequence[Change], author: Author, at: datetime
) -> None:
    """Write a revision with everything that it changes."""
    words = {"source": author.source, "credential": author.credential, "actor": author.actor, "reason": author.reason}
    await connection.execute(REVISIONS.insert().values(revision=revision, at=at, **words))
    rows = [_row(change, revision) for change in changes]
    await connection.execute(CHANGES.insert(), rows)
    gone = (RESOURCES.c.kind == sa.bindparam("of")) & (RESOURCES.c.name == sa.bindparam("called"))
    # All in one round trip: a change may be of thousands.
    await connection.execute(
        RESOURCES.delete().where(gone), [{"of": change.kind, "called": change.name} for change in changes]
    )
    kept = [row for row in rows if row["body"] is not None]
    if kept:
        await connection.execute(RESOURCES.insert(), kept)
    if revision % _LET_GO_EVERY == 0:
        await _let_go(connection, revision - KEPT)


async def _let_go(connection: AsyncConnection, before: int) -> None:
    """Forget what no revision from `before` on needs: changes that were changed again by then."""
    later = CHANGES.alias("later")
    again = sa.exists().where(
        later.c.kind == CHANGES.c.kind,
        later.c.name == CHANGES.c.name,
        later.c.revision > CHANGES.c.revision,
        later.c.revision <= before,
    )
    await connection.execute(CHANGES.delete().where(CHANGES.c.revision < before, again))
    used = sa.exists().where(CHANGES.c.revision == REVISIONS.c.revision)
    await connection.execute(REVISIONS.delete().where(REVISIONS.c.revision < before, ~used))


async def list_revisions(connection: AsyncConnection, limit: int, before: int | None) -> list[Revision]:
    """Revisions, the newest first."""
    query = sa.select(REVISIONS).order_by(REVISIONS.c.revision.desc()).limit(limit)
    if before is not None:
        query = query.where(REVISIONS.c.revision < before)
    found = [dict(row) for row in (await connection.execute(query)).mappings()]
    changes = await _changes_of(connection, [row["revision"] for row in found])
    return [Revision(**row, changes=tuple(changes.get(row["revision"], ()))) for row in found]


async def _changes_of(connection: AsyncConnection, revisions: Sequence[int]) -> Mapping[int, list[ResourceChange]]:
    by_revision: dict[int, list[ResourceChange]] = {}
    columns = (CHANGES.c.revision, CHANGES.c.kind, CHANGES.c.name, CHANGES.c.version)
    query = sa.select(*columns).where(CHANGES.c.revision.in_(revisions)).order_by(CHANGES.c.kind, CHANGES.c.name)
    for revision, kind, name, version in await connection.execute(query):
        by_revision.setdefault(revision, []).append(ResourceChange(kind=kind, name=name, version=version))
    return by_revision


async def list_versions(
    connection: AsyncConnection, kind: Kind, name: str, limit: int, before: int | None
) -> list[ResourceRevision]:
    """What each revision left of one resource, the newest first."""
    query = (
        sa.select(REVISIONS, CHANGES.c.version, CHANGES.c.body)
        .join(CHANGES, CHANGES.c.revision == REVISIONS.c.revision)
        .where(CHANGES.c.kind == kind, CHANGES.c.name == name)
        .order_by(REVISIONS.c.revision.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(REVISIONS.c.revision < before)
    return [ResourceRevision(**row) for row in (await connection.execute(query)).mappings()]


async def state_at(connection: AsyncConnection, revision: int) -> RoutingDocument | None:
    """What held after `revision`; `None` if that is not known any more, or not yet."""
    known = sa.select(sa.func.min(REVISIONS.c.revision), sa.func.max(REVISIONS.c.revision))
    oldest, latest = (await connection.execute(known)).one()
    if revision > (latest or 0) or (revision < (oldest or 0) and oldest != 1):
        return None
    if revision < (latest or 0) - KEPT:
        return None
    last = (
        sa.select(CHANGES.c.kind, CHANGES.c.name, sa.func.max(CHANGES.c.revision).label("revision"))
        .where(CHANGES.c.revision <= revision)
        .group_by(CHANGES.c.kind, CHANGES.c.name)
        .subquery()
    )
    query = sa.select(CHANGES.c.kind, CHANGES.c.name, CHANGES.c.body).join(
        last, sa.and_(*(CHANGES.c[key] == last.c[key] for key in ("kind", "name", "revision")))
    )
    resources: dict[Kind, dict[str, Any]] = {kind: {} for kind in KINDS}
    for kind, name, body in await connection.execute(query):
        if body is not None and kind in resources:
            resources[kind][name] = _read(kind, name, body)
    return build_document(resources)


def _row(change: Change, revision: int) -> dict[str, Any]:
    resource = change.resource
    return {
        "kind": change.kind,
        "name": change.name,
        "revision": revision,
        "version": "" if resource is None else written_version(resource),
        "body": None if resource is None else written(resource),
    }


def _read(kind: str, name: str, body: Any) -> Any:
    if body is None:
        return None
    model = KINDS[cast("Kind", kind)]
    with readable(kind, name):
        return model.model_validate(body)
