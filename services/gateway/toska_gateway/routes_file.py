"""A routing file that is served alone: read at the start, when it changes, on SIGHUP and when asked.

A bad file is refused whole, with every problem and its line; what was served before is served on. It is looked at, not
watched by the kernel: that works on every file system, on bind mounts, and with the swapped links of a ConfigMap.
"""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import anyio
import structlog
from anyio import to_thread
from toska_common.clock import now_utc
from toska_common.contracts.gateway import ReloadResult
from toska_common.contracts.router import DocumentProblem, FileStatus
from toska_common.contracts.routing import RouteTable, Snapshot
from toska_common.errors import ConfigurationError
from toska_common.routing.document import load_document
from toska_common.routing.problems import Finding, InvalidDocument, Problem
from toska_common.routing.snapshot import build_snapshot, build_table
from toska_common.routing.tree import decode, name_problems, parse_yaml

from toska_gateway.errors import SnapshotRejected
from toska_gateway.issuer_keys.readers import local_problems
from toska_gateway.routing import Routing
from toska_gateway.tls_material import TlsFilesRefused, read_material

log = structlog.get_logger(__name__)

LOOK_EVERY = timedelta(seconds=1)
_SETTLED_S = 0.05

Stamp = tuple[int, int, int, int]
"""What tells one content of a file from another without reading it: device, inode, size and time of change."""


Refusals = Callable[[RouteTable], list[Finding]]


def _nothing(_: RouteTable) -> list[Finding]:
    """Of a data plane that does everything that the contract has."""
    return []


def read_routes(path: Path, folder: Path, refusals: Refusals = _nothing) -> Snapshot:
    """Read a routing file, and try the certificates, keys and JWK Sets that it names; relative ones are in `folder`.

    `refusals` finds what the data plane cannot do.

    Raises:
        InvalidDocument: It is wrong, or cannot be read, or a file that it names cannot be used.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
        raise InvalidDocument([Problem("", None, reason)], source=str(path)) from error
    document = load_document(text, source=str(path), registry=False)
    table = build_table(document)
    findings = local_problems(table, folder)
    # As it is written: the table has other places for routes.
    findings += refusals(table.model_copy(update={"routes": document.routes}))
    try:
        read_material(table, folder)
    except TlsFilesRefused as error:
        findings += error.findings
    if findings:
        tree = parse_yaml(decode(text, str(path)), str(path))
        raise InvalidDocument(name_problems(findings, tree), source=str(path))
    return build_snapshot(table)


class RoutesFile:
    """One routing file and what became of it; `refusals` finds what the data plane cannot do.

    Raises:
        ConfigurationError: It is wrong at the start; lists every problem, one to a line.
    """

    def __init__(self, path: Path, folder: Path, refusals: Refusals = _nothing) -> None:
        self._path = path
        self._refusals = refusals
        self._folder = folder
        self._stamp = _stamp(path)
        self._reading = anyio.Lock()
        try:
            self.first = read_routes(path, folder, refusals)
        except InvalidDocument as error:
            listed = "\n".join(f"  {problem}" for problem in error.problems)
            raise ConfigurationError(f"the routing file {path} cannot be used:\n{listed}") from error
        self._status = FileStatus(path=str(path), loaded_at=now_utc())

    def status(self) -> FileStatus:
        """What is served of it, and what is wrong with it now."""
        return self._status

    async def reload(self, routing: Routing) -> ReloadResult:
        """Read the file and serve it.

        Raises:
            InvalidDocument: It is wrong; nothing has changed.
            SnapshotRejected: It cannot be served; likewise.
        """
        async with self._reading:
            before = routing.current
            self._stamp = _stamp(self._path)
            try:
                snapshot = await to_thread.run_sync(read_routes, self._path, self._folder, self._refusals)
                changed = before is None or snapshot.version != before.version
                if changed:
                    await routing.apply(snapshot, "file")
            except InvalidDocument as error:
                self._refuse(map(_described, error.problems), error.detail)
                raise
            except SnapshotRejected as error:
                self._refuse(map(DocumentProblem.model_validate, error.problems), error.detail)
                raise
            self._status = FileStatus(path=str(self._path), loaded_at=now_utc())
            return ReloadResult(version=snapshot.version, changed=changed)

    def _refuse(self, problems: Iterable[DocumentProblem], detail: str) -> None:
        self._status = self._status.model_copy(update={"problems": tuple(problems)})
        log.error("routes_file_refused", path=str(self._path), detail=detail)

    async def watch(self, routing: Routing) -> None:
        """Reload after each change, for ever."""
        while True:
            await anyio.sleep(LOOK_EVERY.total_seconds())
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                await self._settle(stamp)
                await self.reload_quietly(routing)

    async def reload_quietly(self, routing: Routing) -> None:
        """Reload; what is wrong is said in the log and in the status."""
        try:
            result = await self.reload(routing)
        except (InvalidDocument, SnapshotRejected):
            return
        log.info("routes_file_reloaded", path=str(self._path), changed=result.changed)

    async def _settle(self, stamp: Stamp | None) -> None:
        # Editors write in parts.
        while True:
            await anyio.sleep(_SETTLED_S)
            again = _stamp(self._path)
            if again == stamp:
                return
            stamp = again


def _described(problem: Problem) -> DocumentProblem:
    return DocumentProblem(field=problem.path, reason=problem.reason, line=problem.line)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - the one call of the loop, and Path.stat does the same with more steps
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
