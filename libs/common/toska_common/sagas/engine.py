"""DBOS, and the only module that knows it: what remembers the deeds of sagas, and gives sagas to processes.

DBOS runs in a thread with a loop of its own, since it blocks when it opens, replaces the default executor of the loop
that it is called on, and retries without an end while its database is away; the service's loop must notice none of it.
A saga itself runs on the service's loop, where its clients live, and asks its journal over there:

    service's loop                              thread of DBOS
    conduct(id, journal) ◀───────────────────── workflow `toska.saga` of this id
        journal.remember(name, deed) ─────────▶     step `name`: recorded? then that is the answer
        deed() ◀──────────────────────────────      not yet: have it done, record what it gave
                              what it gave ───▶     (refused by the database if the saga was taken over)

Nothing here opens a port, prints, exports telemetry or sets up logging.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from anyio.from_thread import BlockingPortal
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from dbos import error as dbos_errors
from sqlalchemy.exc import DBAPIError

from toska_common.database import DatabaseLocation, DatabaseUnavailable
from toska_common.sagas.errors import HistoryDiffers, JournalBroken, LeaseLost, Left
from toska_common.sagas.journal import Deed, Journal
from toska_common.sagas.journal_engine import JournalDatabase
from toska_common.sagas.manners import Naps, teach
from toska_common.sagas.thread import LoopThread

T = TypeVar("T")

VERSION = "toska-1"
"""Of what is recorded, and not of the app: by DBOS's default, a hash of the source, a changed app would find nothing
of what it had begun. Sagas have versions of their own."""

Conduct = Callable[[str, Journal], Awaitable[bool]]
"""Runs a saga on the service's loop; `False` if it was left unfinished, for a later run of it."""

_running: "Engine | None" = None


@DBOS.workflow(name="toska.saga", max_recovery_attempts=None)
async def _workflow(saga_id: str) -> None:
    if _running is None:
        raise asyncio.CancelledError
    await _running.serve(saga_id)


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    deed: Deed
    answer: "Future[Any]"


class _Desk:
    """The journal of one run of a saga: takes requests on the service's loop, and has them served in DBOS's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests: asyncio.Queue[_Request | None] = asyncio.Queue()

    async def remember(self, name: str, deed: Deed) -> Any:
        request = _Request(name, deed, Future())
        self._loop.call_soon_threadsafe(self._requests.put_nowait, request)
        return await asyncio.wrap_future(request.answer)

    async def next(self) -> _Request | None:
        return await self._requests.get()

    def close(self, _: "Future[bool]") -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._requests.put_nowait, None)


class Engine:
    """DBOS under one executor's name; there is one in a process at a time.

    Args:
        location: The database.
        service: Whose sagas these are.
        portal: Into the service's loop.
        conduct: Called there for each saga that is given to this process.
    """

    def __init__(self, location: DatabaseLocation, service: str, portal: BlockingPortal, conduct: Conduct) -> None:
        self._location = location
        self._service = service
        self._portal = portal
        self._conduct = conduct
        self._thread = LoopThread("toska-sagas")
        self._database: JournalDatabase | None = None
        self._naps: Naps | None = None

    async def open(self, executor: str) -> None:
        """Start DBOS under this name.

        Raises:
            DatabaseUnavailable: It does not answer.
        """
        global _running
        if _running is not None:
            raise RuntimeError("this process runs the sagas of another service already")
        _running = self
        await self._thread.start()
        await self._thread.call(self._launch, executor)

    async def start(self, saga_id: str) -> None:
        """Have a saga run, here if it is new; one that was started before is left to whoever has it."""
        await self._thread.call(self._start, saga_id)

    async def resume(self, saga_id: str) -> None:
        """Have a saga run that nobody runs: it is given to whichever process asks first, in a second."""
        await self._thread.call(DBOS.resume_workflow_async, saga_id)

    async def pending_executors(self) -> set[str]:
        """The names of all that sagas were given to, and that have not ended them."""
        return await self._thread.call(self._pending_executors)

    async def take_over(self, executors: set[str]) -> None:
        """Give to others what these had; each must be one that will never be heard of again."""
        await self._thread.call(asyncio.to_thread, self._recover, sorted(executors))

    async def is_known(self, saga_id: str) -> bool:
        """Whether a saga was ever started."""
        return await self._thread.call(DBOS.get_workflow_status_async, saga_id) is not None

    async def is_held_by(self, saga_id: str, executor: str) -> bool:
        """Whether a saga was given to this one, and not ended."""
        status = await self._thread.call(DBOS.get_workflow_status_async, saga_id)
        return status is not None and status.status == "PENDING" and status.executor_id == executor

    async def forget(self, ids: list[str]) -> None:
        """Delete what is recorded of these."""
        await self._thread.call(DBOS.delete_workflows_async, ids)

    def close(self) -> None:
        """Stop; sagas that run stay as they are recorded. Blocks for up to some seconds."""
        global _running
        if self._database is not None:
            self._database.close()
        if self._naps is not None:
            self._naps.end()
        try:
            DBOS.destroy()
        finally:
            self._thread.stop()
            if self._database is not None:
                self._database.dispose()
            _running = None

    async def serve(self, saga_id: str) -> None:
        """One run of a saga, in DBOS's loop."""
        desk = _Desk()
        conducted = self._ask_service(partial(self._conduct, saga_id, desk))
        conducted.add_done_callback(desk.close)
        while (request := await desk.next()) is not None:
            await self._answer(request)
        if not await asyncio.wrap_future(conducted):
            # Nothing is recorded of a run that is cancelled: the saga stays where it is, for a later run.
            raise asyncio.CancelledError

    def _ask_service(self, function: Callable[[], Awaitable[T]]) -> "Future[T]":
        """Have something done on the service's loop, in a context of its own.

        In ours, DBOS would take a saga that an action starts for a part of the one that runs.
        """
        try:
            return contextvars.Context().run(self._portal.start_task_soon, function)
        except RuntimeError as error:  # the portal is closed
            raise asyncio.CancelledError from error

    async def _answer(self, request: _Request) -> None:
        left: list[BaseException] = []

        async def do() -> Any:
            try:
                given = await asyncio.wrap_future(self._ask_service(partial(_unless_left, request.deed)))
                if isinstance(given, Left):
                    raise given
                return given
            except BaseException as error:
                # DBOS would record an `Exception` as what the step gave; deeds that raise have given nothing.
                left.append(error)
                raise asyncio.CancelledError from error

        try:
            given = await DBOS.run_step_async({"name": request.name}, do)
        except dbos_errors.DBOSUnexpectedStepError as error:
            _fail(request, HistoryDiffers(f"asks for {request.name}, but another step is recorded there: {error}"))
        except (dbos_errors.DBOSException, dbos_errors.DBOSBaseException) as error:
            # Above all: what was done cannot be recorded, since the saga is another run's by now.
            _fail(request, LeaseLost(f"{request.name}: {type(error).__name__}"))
        except asyncio.CancelledError:
            _fail(request, _why(left))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception as error:  # noqa: BLE001 - of whatever kind: what is recorded cannot be read
            _fail(request, JournalBroken(f"{request.name}: {type(error).__name__}: {error}"))
        else:
            if request.answer.set_running_or_notify_cancel():
                request.answer.set_result(given)

    async def _launch(self, executor: str) -> None:
        self._naps = teach()
        self._database = JournalDatabase(self._location)
        config: DBOSConfig = {
            "name": f"toska-{self._service}",  # of its own it refuses those of one or two letters
            "executor_id": executor,
            "application_version": VERSION,
            "system_database_engine": self._database.engine,
            "dbos_system_schema": self._location.schema,
            "serializer": DBOSPortableJSONSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            # Of what DBOS can notify, sagas use nothing.
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 0.25,
            "max_executor_threads": 32,
        }
        try:
            DBOS(config=config)
            DBOS.launch()
        except DBAPIError as error:
            reason = str(error.orig).partition("\n")[0]
            raise DatabaseUnavailable(f"{self._location}: {reason}") from error

    async def _start(self, saga_id: str) -> None:
        with SetWorkflowID(saga_id):
            await DBOS.start_workflow_async(_workflow, saga_id)

    async def _pending_executors(self) -> set[str]:
        pending = await DBOS.list_workflows_async(status="PENDING", load_input=False, load_output=False)
        return {workflow.executor_id for workflow in pending if workflow.executor_id}

    def _recover(self, executors: list[str]) -> None:
        # What DBOS's own conductor calls. Each saga goes back to the queue only if it is still that executor's, in
        # one statement, so that several who do this at once do it once.
        cast("Any", DBOS)._recover_pending_workflows(executors)


async def _unless_left(deed: Deed) -> Any:
    # A portal that sees anything but an `Exception` takes it for the end of all that runs in it.
    try:
        return await deed()
    except Left as left:
        return left


def _why(left: list[BaseException]) -> Left:
    if not left or isinstance(left[0], asyncio.CancelledError):
        return Left("stopping")
    error = left[0]
    return error if isinstance(error, Left) else JournalBroken(f"{type(error).__name__}: {error}")


def _fail(request: _Request, error: BaseException) -> None:
    if request.answer.set_running_or_notify_cancel():
        request.answer.set_exception(error)
