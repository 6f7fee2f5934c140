"""`Sagas`: what a service holds, starts sagas with and asks about them."""

import sqlite3
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import anyio
import structlog
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from toska_common import trace
from toska_common.clock import now_utc
from toska_common.contracts.sagas import FINAL, SagaDetail, SagaList, SagaState
from toska_common.database import Database, DatabaseUnavailable, parse_location
from toska_common.errors import ConfigurationError, InvalidInput, MeshError
from toska_common.problem import field_problems
from toska_common.sagas.definition import Saga
from toska_common.sagas.errors import LeaseLost, SagaFailed, SagasClosed
from toska_common.sagas.metrics import SagaMetrics
from toska_common.sagas.names import check_id, check_name
from toska_common.sagas.settings import SagaSettings
from toska_common.sagas.steps import In, Out
from toska_common.sagas.storable import require_storable, storable_text
from toska_common.sagas.views import cursor, detail, read_cursor, summary
from toska_common.settings import load_settings

if TYPE_CHECKING:
    from toska_common.sagas.worker import Worker

log = structlog.get_logger(__name__)

_LONGEST_SCHEMA = 63
_OPENED_WITHIN_S = 30.0
_CONNECTIONS = 4
"""To PostgreSQL, that are kept: sagas write side by side, and all the time while there are any."""


class Sagas:
    """The sagas of one service, run by all its processes over one database.

        sagas = Sagas("orders", [place_order], registry=mesh.metrics.registry)

        @asynccontextmanager
        async def lifespan(_: FastAPI):
            async with sagas:
                yield

    Nothing is loaded or opened before the first saga is started, or one is found that was left unfinished.

    Args:
        service: Its name; processes under one name share their sagas, and all know the same ones.
        definitions: The sagas it knows, older versions with sagas under way included.
        settings: Instead of those that the environment has.
        registry: Where its metrics go.

    Raises:
        ConfigurationError: A definition or a setting is wrong, or the extra is not installed.
    """

    def __init__(
        self,
        service: str,
        definitions: Sequence[Saga[Any, Any]],
        *,
        settings: SagaSettings | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        if find_spec("dbos") is None:
            raise ConfigurationError(f"Sagas({service!r}) needs the extra: pip install 'toska-common[sagas]'")
        self.service = check_name("service", service)
        self.settings = settings or load_settings(SagaSettings)
        self._definitions = _by_name(definitions)
        self._metrics = SagaMetrics(registry or CollectorRegistry())
        location = parse_location(
            self.settings.database_url.get_secret_value(),
            service=f"sagas_{service.replace('-', '_')}",
            home=self.settings.home,
        )
        if location.file is None and len(location.schema) > _LONGEST_SCHEMA:
            raise ConfigurationError(f"Sagas({service!r}): the name is too long for a schema of PostgreSQL")
        self._database = Database(location, migrations="toska_common.sagas.migrations", kept=_CONNECTIONS)
        self._exit = AsyncExitStack()
        self._is_running = False
        self._needed = anyio.Event()
        self._worker: Worker | None = None
        self._turned_up = anyio.Event()
        self._failure: MeshError | None = None

    async def __aenter__(self) -> Self:
        group = await self._exit.enter_async_context(anyio.create_task_group())
        self._is_running = True
        group.start_soon(self._work, group)
        self._exit.callback(group.cancel_scope.cancel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_running = False
        try:
            await self._exit.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await self._database.aclose()

    async def start(self, saga: Saga[In, Out], value: In, *, id: str | None = None) -> str:  # noqa: A002 - as in URLs
        """Start a saga, once for each id; it is durable when this returns its id.

        Args:
            saga: One of those that `Sagas` was given.
            value: Its input.
            id: What tells it from others, such as the order's number; a new one by default.

        Raises:
            InvalidInput: The input or the id is not valid.
            SagaIdTaken: The id belongs to a saga of another kind or with another input.
            DatabaseUnavailable: It may have been started nevertheless: start it again, with its id.
        """
        if self._definitions.get((saga.name, saga.version)) is not saga:
            raise ConfigurationError(f"{saga!r} is not among the sagas of {self.service}")
        from toska_common.sagas.store import NewSaga

        saga_id = check_id(id if id is not None else str(uuid4()))
        deadline_at = None if saga.timeout is None else now_utc() + saga.timeout
        new = NewSaga(saga_id, saga.name, saga.version, _stored(saga, value), deadline_at, _traceparent())
        while True:
            worker = await self._at_work()
            try:
                await worker.start(new)
            except LeaseLost:
                # This process stalled for longer than its lease; it is about to take another slot.
                await worker.lost.wait()
                await self._until_left(worker)
            else:
                return saga_id

    async def wait(self, saga_id: str, *, timeout: timedelta | None = None) -> SagaDetail:
        """Wait until a saga has ended or is stuck, whether or not the database is there all the time; what it came to.

        Raises:
            UnknownSaga: There is none.
            TimeoutError: It still ran then; it goes on.
        """
        with anyio.fail_after(None if timeout is None else timeout.total_seconds()):
            await self._until_settled(saga_id)
            return await self.get(saga_id)

    async def _until_settled(self, saga_id: str) -> Any:
        """Wait until a saga has ended or is stuck; its row."""
        while True:
            try:
                worker = await self._at_work()
                with worker.awaiting(saga_id) as settled:
                    row = await worker.store.get(saga_id)
                    if row.state in FINAL or row.state == SagaState.STUCK:
                        return row
                    with anyio.move_on_after(2):  # the worker may lose its slot, and tells nobody then
                        await settled.wait()
            except DatabaseUnavailable:
                await anyio.sleep(0.5)

    async def run(self, saga: Saga[In, Out], value: In, *, id: str | None = None) -> Out:  # noqa: A002 - as in URLs
        """Start a saga and wait for its result; raises as `start`.

        Raises:
            SagaFailed: It was undone, or is stuck.
        """
        ended = await self._until_settled(await self.start(saga, value, id=id))
        state = SagaState(ended.state)
        if state is not SagaState.COMPLETED:
            raise SagaFailed(f"saga {ended.id} is {state.value}", saga_id=ended.id, state=state.value)
        return saga.result.validate_python(ended.result)

    async def get(self, saga_id: str) -> SagaDetail:
        """One saga with its history.

        Raises:
            UnknownSaga: There is none.
        """
        worker = await self._at_work()
        return detail(*await worker.store.history(check_id(saga_id)))

    async def list(
        self, *, state: SagaState | None = None, name: str | None = None, before: str | None = None, limit: int = 50
    ) -> SagaList:
        """A page of sagas, newest first; `before` is `next` of the page before."""
        if self._worker is None and self._database.is_absent():
            return SagaList(sagas=[])
        place = None if before is None else read_cursor(before)
        worker = await self._at_work()
        rows = await worker.store.page(state=state, name=name, before=place, limit=limit + 1)
        following = cursor(rows[limit - 1]) if len(rows) > limit else None
        return SagaList(sagas=[summary(row) for row in rows[:limit]], next=following)

    async def cancel(self, saga_id: str, reason: str = "") -> None:
        """Have a saga turn back; it does so as soon as whoever runs it has seen this.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It has ended, or is turning back already.
        """
        worker = await self._at_work()
        await worker.store.request_cancel(check_id(saga_id), storable_text(reason))
        log.info("saga_cancel_requested", saga=saga_id, reason=reason)

    async def resume(self, saga_id: str) -> None:
        """Have a saga go on that is stuck, with as many attempts as it had at first.

        Raises:
            UnknownSaga: There is none.
            IllegalSagaState: It is not stuck.
        """
        await (await self._at_work()).resume(check_id(saga_id))

    def check(self) -> None:
        """For readiness: `mesh.health.add("sagas", sagas.check)`.

        Raises:
            MeshError: Sagas cannot be run here at the moment.
        """
        if self._failure is not None:
            raise self._failure

    # The work, and when there is any.

    async def _at_work(self) -> "Worker":
        self._needed.set()
        with anyio.move_on_after(_OPENED_WITHIN_S):
            while self._is_running:
                if self._worker is not None:
                    return self._worker
                if self._failure is not None:
                    raise self._failure
                await self._turned_up.wait()
        raise SagasClosed("sagas run only while the service does" if not self._is_running else "sagas do not open")

    async def _until_left(self, worker: "Worker") -> None:
        while self._worker is worker:
            await self._turned_up.wait()

    async def _work(self, group: TaskGroup) -> None:
        await self._until_needed()
        # Loaded here and in a thread: it takes a second.
        await self._database.load()
        module = await run_sync(import_module, "toska_common.sagas.worker")
        parts = module.WorkerParts(
            service=self.service,
            database=self._database,
            definitions=self._definitions,
            metrics=self._metrics,
            lease=self.settings.lease,
            concurrency=self.settings.concurrency,
            stopping=self.settings.stopping,
            keep=self.settings.keep,
        )
        while True:
            try:
                async with module.Worker.at_work(parts, group) as worker:
                    self._turn_up(worker, None)
                    try:
                        await worker.tend()
                    finally:
                        self._turn_up(None, None)
            except DatabaseUnavailable as error:
                self._turn_up(None, error)
                log.warning("sagas_not_open", reason=error.detail)
                await anyio.sleep(1)
            except Exception:
                # Whatever it is, it is said, and the readiness check tells; the service's other work goes on.
                self._turn_up(None, SagasClosed("sagas cannot be opened here; the service's log says why"))
                log.exception("sagas_failed")
                await anyio.sleep(5)

    def _turn_up(self, worker: "Worker | None", failure: MeshError | None) -> None:
        self._worker, self._failure = worker, failure
        self._turned_up.set()
        self._turned_up = anyio.Event()

    async def _until_needed(self) -> None:
        while not self._needed.is_set():
            file = self._database.location.file
            if file is None or await run_sync(_has_unfinished, file):
                return
            with anyio.move_on_after(self.settings.lease.total_seconds()):
                await self._needed.wait()


def _by_name(definitions: Sequence[Saga[Any, Any]]) -> dict[tuple[str, int], Saga[Any, Any]]:
    found: dict[tuple[str, int], Saga[Any, Any]] = {}
    for saga in definitions:
        if found.setdefault((saga.name, saga.version), saga) is not saga:
            raise ConfigurationError(f"{saga!r} is there twice")
    return found


def _stored(saga: Saga[In, Any], value: In) -> Any:
    try:
        stored = saga.input.dump_python(saga.input.validate_python(value), mode="json")
        saga.input.validate_python(stored)
        require_storable(stored)
    except ValidationError as error:
        raise InvalidInput(f"the input of {saga.name}", problems=field_problems(error.errors())) from error
    except ValueError as error:
        raise InvalidInput(
            f"the input of {saga.name}: {error}", problems=[{"field": "input", "reason": str(error)}]
        ) from error
    return stored


def _traceparent() -> str:
    ids = trace.current_ids()
    context = trace.current.get()
    if ids is None:
        return trace.new_trace().traceparent
    return trace.TraceContext(*ids, sampled=context is None or context.sampled).traceparent


def _has_unfinished(file: Path) -> bool:
    """Look without SQLAlchemy, which a service that has no sagas need not load."""
    if not file.exists():
        return False
    final = ", ".join(f"'{state.value}'" for state in FINAL)
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            found = connection.execute(f"SELECT 1 FROM sagas WHERE state NOT IN ({final}) LIMIT 1")  # noqa: S608 - ours
            return found.fetchone() is not None
    except sqlite3.Error:
        return True  # whatever is wrong with it is for those to say who open it
