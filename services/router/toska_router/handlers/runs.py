"""What rollouts and experiments have in common over HTTP: how they are read, begun and taken away, and by whom."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response
from toska_common.contracts import Contract
from toska_common.contracts.experiments import Experiment
from toska_common.contracts.rollouts import Rollout
from toska_common.errors import InvalidInput

from toska_router.experiments.changes import BY as EXPERIMENT
from toska_router.handlers.authors import ACTOR, read_author
from toska_router.handlers.bodies import read_precondition, read_resource
from toska_router.handlers.changing import REFUSALS
from toska_router.handlers.entries import answer
from toska_router.handlers.resources import NAME, PARAMETERS
from toska_router.parts import Parts
from toska_router.rollouts.leading import BY as ROLLOUT
from toska_router.runs.book import Check, RunsBook, find, precondition_of
from toska_router.runs.records import ExperimentRecord, Kind, RolloutRecord
from toska_router.runs.store import Runs

D = TypeVar("D", Rollout, Experiment)
R = TypeVar("R", RolloutRecord, ExperimentRecord)

LIMIT = Annotated[int, Query(ge=1, le=500, description="The newest so many lines")]
CHANGES: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (404, 409, 412, 422, 503)}
_THEMSELVES = frozenset({ROLLOUT, EXPERIMENT})


@dataclass(frozen=True, slots=True)
class RunKind(Generic[D, R]):
    """Rollouts, or experiments.

    Attributes:
        kind: What one is called.
        asked_for: What a body is read as.
        entry: What one is shown as.
        event: What a line of a history is shown as.
        records: All of them, by name.
        show: The content of an entry.
        put: Begins one, or one anew; tells whether the name is new.
        delete: Takes one away.
        seen: What an entry has besides, for the API's description.
        left: What holds once one is taken away, likewise.
    """

    kind: Kind
    asked_for: type[D]
    entry: type[Contract]
    event: type[Contract]
    records: Callable[[Runs], Mapping[str, R]]
    show: Callable[[Parts, R], dict[str, Any]]
    put: Callable[[RunsBook, D, str, Check], Awaitable[bool]]
    delete: Callable[[RunsBook, str, Check], Awaitable[None]]
    seen: str
    left: str = ""

    @property
    def path(self) -> str:
        """In URLs."""
        return f"{self.kind}s"

    def answer(self, parts: Parts, name: str, status: int = 200) -> Response:
        """One of them, with its `ETag`.

        Raises:
            NotFound: There is none of that name.
        """
        record = find(self.records(parts.runs.runs), self.kind, name)
        return answer(self.show(parts, record), status, version=record.version)


def run_routes(parts: Parts, what: RunKind[D, R]) -> APIRouter:
    """The handlers that both kinds have."""
    router = APIRouter(prefix=f"/api/v1/{what.path}", tags=[what.path])
    _add_reads(router, parts, what)
    _add_changes(router, parts, what)
    return router


def _add_reads(router: APIRouter, parts: Parts, what: RunKind[D, R]) -> None:
    @router.get(
        "",
        name=f"list {what.path}",
        response_model=list[what.entry],
        description=f"All {what.path} by name, those that are over included.",
    )
    async def list_all() -> Response:
        return answer([what.show(parts, record) for _, record in sorted(what.records(parts.runs.runs).items())])

    @router.get(
        "/{name}",
        name=f"get {what.kind}",
        response_model=what.entry,
        responses={404: REFUSALS[404]},
        description=f"One {what.kind}, with {what.seen}; its `ETag` is for `If-Match`.",
    )
    async def get_one(name: NAME) -> Response:
        return what.answer(parts, name)

    @router.get(
        "/{name}/history",
        name=f"get history of {what.kind}",
        response_model=list[what.event],
        responses={404: REFUSALS[404]},
        description="What became of it, the oldest first: each verdict with the numbers that it was found by.",
    )
    async def get_history(name: NAME, limit: LIMIT = 100) -> Response:
        find(what.records(parts.runs.runs), what.kind, name)
        return answer(await parts.runs.store.list_events(what.kind, name, limit))


def _add_changes(router: APIRouter, parts: Parts, what: RunKind[D, R]) -> None:
    takes = {"schema": {"$ref": f"#/components/schemas/{what.asked_for.__name__}"}}
    body = {"required": True, "content": {"application/json": takes, "application/yaml": takes}}

    @router.put(
        "/{name}",
        name=f"put {what.kind}",
        response_model=what.entry,
        responses={201: {"description": "It is new", "model": what.entry}, **CHANGES},
        openapi_extra={"requestBody": body, "parameters": PARAMETERS},
        description=f"Begin one of these {what.path}, or one anew that is over. The body may leave out `name`.",
    )
    async def put(name: NAME, request: Request) -> Response:
        asked_for = await read_resource(request, what.asked_for, name=name)
        if asked_for.name != name:
            reason = f"the URL says {name}"
            raise InvalidInput(reason, problems=[{"field": "name", "reason": reason}])
        created = await what.put(parts.runs, asked_for, who(request), condition(request))
        return what.answer(parts, name, 201 if created else 200)

    @router.delete(
        "/{name}",
        name=f"delete {what.kind}",
        status_code=204,
        responses=CHANGES,
        openapi_extra={"parameters": PARAMETERS},
        description=f"Take one away that is over, with its history{what.left}.",
    )
    async def delete(name: NAME, request: Request) -> Response:
        await what.delete(parts.runs, name, condition(request))
        return Response(status_code=204)


def who(request: Request) -> str:
    """Who asks, for a history.

    Raises:
        InvalidInput: They call themselves what rollouts and experiments are called that act by themselves.
    """
    author = read_author(request)
    if author.actor in _THEMSELVES:
        reason = f"{author.actor} is what the history calls those that act by themselves"
        raise InvalidInput(f"{ACTOR}: {reason}", problems=[{"field": ACTOR, "reason": reason}])
    return author.actor or author.credential or "somebody"


def condition(request: Request) -> Check:
    """The request's `If-Match` and `If-None-Match`."""
    precondition = read_precondition(request)
    return precondition_of(precondition.versions, absent=precondition.absent)
