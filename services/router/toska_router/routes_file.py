"""The routing file: read at the start, and again whenever it changes. A bad one is refused whole.

It is looked at, not watched by the kernel: that works on every file system, on bind mounts, and with the swapped
links of a Kubernetes ConfigMap. A change is read once it has stood still for a moment, since editors write in parts.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import anyio
import structlog
from toska_common.clock import now_utc
from toska_common.contracts.router import DocumentProblem, FileStatus
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import ConfigurationError
from toska_common.files import Stamp, read_file, stamp
from toska_common.routing.document import InvalidDocument, Problem, load_document
from toska_common.routing.tree import MAX_BYTES

from toska_router.last_good import LastGoodStore

log = structlog.get_logger(__name__)

_SETTLED = timedelta(milliseconds=50)


class RoutesFile:
    """One routing file and what became of it."""

    def __init__(self, path: Path, store: LastGoodStore) -> None:
        self._path = path
        self._store = store
        self._stamp: Stamp = None
        self._status = FileStatus(path=str(path))

    @property
    def status(self) -> FileStatus:
        """What was read last, and what is wrong with what is there now."""
        return self._status

    def open(self, beside: RoutingDocument) -> RoutingDocument:
        """Read the file at the start; if it is bad now, what was good in it last.

        Raises:
            ConfigurationError: It is bad or absent, and was never good; every problem is named.
        """
        self._stamp = stamp(self._path)
        try:
            return self.read(beside)
        except InvalidDocument as error:
            text = self._store.load(self._path)
            if text is None:
                raise ConfigurationError(_explain(error)) from error
            self.refuse(error)
            try:
                return load_document(text, source=str(self._path), beside=beside)
            except InvalidDocument as older:
                raise ConfigurationError(_explain(error)) from older

    def read(self, beside: RoutingDocument) -> RoutingDocument:
        """Read and check the file as it is now, and remember it as good.

        Raises:
            InvalidDocument: It is bad, or cannot be read.
        """
        try:
            text = read_file(self._path, MAX_BYTES + 1)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            raise InvalidDocument([Problem("", None, reason)], source=str(self._path)) from error
        document = load_document(text, source=str(self._path), beside=beside)
        try:
            self._store.save(self._path, text.decode("utf-8-sig"))
        except OSError as error:  # a full disk is no reason to serve what operators do not want any more
            log.error("routes_file_not_remembered", path=str(self._path), reason=error.strerror or str(error))
        self._status = FileStatus(path=str(self._path), loaded_at=now_utc())
        return document

    def refuse(self, error: InvalidDocument) -> None:
        """Note why the file is not used as it is now."""
        problems = tuple(
            DocumentProblem(field=problem.path, reason=problem.reason, line=problem.line) for problem in error.problems
        )
        self._status = self._status.model_copy(update={"problems": problems})
        log.error("routes_file_refused", path=str(self._path), problems=[str(problem) for problem in error.problems])

    def look_again(self) -> None:
        """Read a refused file again at the next look: what it was in conflict with may be gone."""
        if self._status.problems:
            self._stamp = None

    async def watch(self, interval: timedelta, reload: Callable[[], Awaitable[None]]) -> None:
        """Call `reload` after each change, for ever."""
        while True:
            await anyio.sleep(interval.total_seconds())
            found = stamp(self._path)
            if found == self._stamp:
                continue
            self._stamp = await self._settle(found)
            await reload()

    async def _settle(self, found: Stamp) -> Stamp:
        while True:
            await anyio.sleep(_SETTLED.total_seconds())
            again = stamp(self._path)
            if again == found:
                return found
            found = again


def _explain(error: InvalidDocument) -> str:
    listed = "\n".join(f"  {problem}" for problem in error.problems)
    return f"the routing file {error.source} cannot be used:\n{listed}"
