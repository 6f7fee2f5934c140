"""Changes asked for over HTTP: made, or with `?dry_run=true` only told what they would come to."""

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Query, Request
from starlette.responses import Response
from toska_common.contracts.revisions import ChangePreview, WrittenDifference
from toska_common.routing.differences import diff_resources, diff_tables

from toska_router.book import Outcome, Propose
from toska_router.handlers.authors import read_author
from toska_router.handlers.entries import answer
from toska_router.parts import Parts

DRY_RUN = Annotated[bool, Query(description="Change nothing, and tell what would be different")]

REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"description": "There is no such thing"},
    409: {"description": "Another source has it, or something refers to it"},
    412: {"description": "If-Match or If-None-Match does not hold"},
    422: {"description": "It is wrong, or does not fit the table; `problems` names everything"},
    503: {"description": "The database does not answer: ask again after Retry-After"},
}
PREVIEW: dict[int | str, dict[str, Any]] = {
    200: {"description": "What was asked for; or, as a dry run, what it would be"}
}


async def make_change(parts: Parts, request: Request, propose: Propose, source: str = "api") -> Outcome:
    """Make a change in the name of whoever asks for it; gateways have it within milliseconds."""
    return await parts.book.change(propose, read_author(request, source))


async def preview_change(parts: Parts, propose: Propose) -> Response:
    """What a change would come to, for those who wrote it and for gateways."""
    outcome = await parts.book.preview(propose)
    tables = parts.composer.compile(outcome.before), parts.composer.compile(outcome.after)
    # Off the event loop: the versions of 10,000 routes take a while.
    compiled = await run_sync(diff_tables, *tables)
    preview = ChangePreview(written=written_differences(outcome), compiled=compiled)
    return answer(preview.model_dump(mode="json", exclude_defaults=True))


async def make_or_preview(
    parts: Parts, request: Request, propose: Propose, source: str = "api", *, dry_run: bool
) -> Response:
    """Make a change of several resources, or only look: answers with what is different in either case."""
    if dry_run:
        return await preview_change(parts, propose)
    outcome = await make_change(parts, request, propose, source)
    revision = outcome.revision if outcome.changes else None
    preview = ChangePreview(written=await run_sync(written_differences, outcome), revision=revision)
    return answer(preview.model_dump(mode="json", exclude_defaults=True), revision=outcome.revision)


def written_differences(outcome: Outcome) -> tuple[WrittenDifference, ...]:
    """What is different of what people wrote."""
    found: list[WrittenDifference] = []
    for change in outcome.changes:
        before = outcome.before.find_written(change.kind, change.name)
        kind = "added" if before is None else "removed" if change.resource is None else "changed"
        differences = diff_resources(before, change.resource)
        found.append(WrittenDifference(kind=change.kind, name=change.name, change=kind, differences=differences))
    return tuple(found)
