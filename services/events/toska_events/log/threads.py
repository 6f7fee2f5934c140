"""The threads of the log: one that writes, one that reads, and neither ever keeps the event loop waiting.

The writer takes everything that has come meanwhile into one commit, so that many publishers share one fsync. What each
job made is handed back in the order of the jobs, a round at a time.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog
from toska_common.clock import Clock
from toska_common.events.embedded.records import Publication, microseconds
from toska_common.events.errors import EventRefused, LogFull

from toska_events.log.file import LogFile
from toska_events.log.reading import LogReading
from toska_events.log.rows import Row

log = structlog.get_logger(__name__)

T = TypeVar("T")
F = TypeVar("F")

_REFUSALS = (LogFull, EventRefused)
"""What is wrong with one call, and not with the log."""
ROUND_BYTES = 8 << 20
"""Most that one commit takes, unless one call alone is more."""


@dataclass(slots=True)
class Append:
    """Events of one call, on their way into the log."""

    publications: list[Publication]
    size: int
    done: "Callable[[list[Row] | Exception], None]"
    result: Any = None


@dataclass(slots=True)
class Job(Generic[T]):
    """Something to be done with the file, in its turn."""

    work: Callable[[Any], T]
    done: "Callable[[T | Exception], None]"
    result: Any = None


class _Thread(ABC, Generic[F]):
    """Where things are done one after the other with a file of the kind `F`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition()
        self._closing = False

    @abstractmethod
    def submit(self, work: Callable[[F], T], done: Callable[[T | Exception], None]) -> None:
        """Have something done; `done` is called in the event loop."""

    async def call(self, work: Callable[[F], T]) -> T:
        """The same, waiting for it."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.submit(work, lambda result: _settle(future, result))
        return await future

    def _end(self, thread: threading.Thread | None) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify()
        if thread is not None:
            thread.join()


class LogWriter(_Thread[LogFile]):
    """Runs what is asked of a `LogFile` in a thread of its own.

    Attributes:
        waiting_bytes: Of events that are not committed yet.
        commits: Rounds so far in which something was appended.
    """

    def __init__(self, file: LogFile, clock: Clock, on_crash: Callable[[Exception], None]) -> None:
        super().__init__()
        self.waiting_bytes = 0
        self.commits = 0
        self._file = file
        self._clock = clock
        self._on_crash = on_crash
        self._jobs: deque[Append | Job[Any]] = deque()
        self._thread = threading.Thread(target=self._run, name="events-writer", daemon=True)
        self._thread.start()

    def append(self, job: Append) -> None:
        """Have events stored; `done` is called in the event loop with the new ones, or with why they were not."""
        self.waiting_bytes += job.size
        self._put(job)

    def submit(self, work: Callable[[LogFile], T], done: Callable[[T | Exception], None]) -> None:
        """Have something else done with the file, after everything that was asked before."""
        self._put(Job(work, done))

    def close(self) -> None:
        """Finish what was asked, and end the thread. Blocks: call it in another thread."""
        self._end(self._thread)

    def _put(self, job: Append | Job[Any]) -> None:
        with self._condition:
            self._jobs.append(job)
            self._condition.notify()

    def _run(self) -> None:
        try:
            while (round_ := self._next_round()) is not None:
                if isinstance(round_, Job):
                    self._do(round_)
                    self._hand_back(round_.done, round_.result)
                else:
                    self._append_all(round_)
                    self._hand_back(self._finish, round_)
        except Exception as error:
            log.exception("event_log_failed")
            self._hand_back(self._on_crash, error)

    def _hand_back(self, function: Callable[..., None], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    def _next_round(self) -> "list[Append] | Job[Any] | None":
        """Appends that are committed together, or one other job; `None` once it is closed and all is done."""
        with self._condition:
            while not self._jobs and not self._closing:
                self._condition.wait()
            if not self._jobs:
                return None
            first = self._jobs.popleft()
            if isinstance(first, Job):
                return first
            taken, size = [first], first.size
            while self._jobs and isinstance(job := self._jobs[0], Append) and size + job.size <= ROUND_BYTES:
                self._jobs.popleft()
                taken.append(job)
                size += job.size
            return taken

    def _do(self, job: Job[Any]) -> None:
        try:
            job.result = job.work(self._file)
        except _REFUSALS as error:
            job.result = error

    def _append_all(self, appends: list[Append]) -> None:
        now = microseconds(self._clock.now())
        self.commits += 1
        try:
            appends[0].result = self._file.append([one for job in appends for one in job.publications], now)
            for job in appends[1:]:
                job.result = []
        except _REFUSALS as error:
            if len(appends) == 1:
                appends[0].result = error
                return
            for job in appends:  # one that is too large, or is refused, keeps no other out
                self._append_all([job])

    def _finish(self, appends: list[Append]) -> None:
        for job in appends:
            self.waiting_bytes -= job.size
            job.done(job.result)


class LogReader(_Thread[LogReading]):
    """Runs queries of a `LogReading` in a thread of its own, started when first needed."""

    def __init__(self, open_reading: Callable[[], LogReading]) -> None:
        super().__init__()
        self._open = open_reading
        self._reading: LogReading | None = None
        self._jobs: deque[Job[Any]] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[LogReading], T], done: Callable[[T | Exception], None]) -> None:
        """Have something read; `done` is called in the event loop."""
        with self._condition:
            self._jobs.append(Job(work, done))
            self._condition.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="events-reader", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; what it has not read is not read. Blocks: call it in another thread."""
        self._end(self._thread)

    def _run(self) -> None:
        try:
            while job := self._next():
                try:
                    self._reading = self._reading or self._open()
                    job.result = job.work(self._reading)
                except Exception as error:  # noqa: BLE001 - handed to whoever asked
                    job.result = error
                if not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(job.done, job.result)
        finally:
            if self._reading is not None:
                self._reading.close()

    def _next(self) -> Job[Any] | None:
        with self._condition:
            while not self._jobs and not self._closing:
                self._condition.wait()
            return None if self._closing else self._jobs.popleft()


def _settle(future: asyncio.Future[T], result: T | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
