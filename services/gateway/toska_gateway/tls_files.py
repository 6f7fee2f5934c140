"""The files of TLS in use: read when the routing names them, looked at every second, and read again when they change.

What cannot be used is refused with its reason and what was in use stays, so a renewal that writes certificate and key
one after the other does no harm in between.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread
from toska_common.contracts.routing import Cluster, RouteTable, Server
from toska_common.files import Stamp, stamp
from toska_common.routing.picking import PickedClusters

from toska_gateway.errors import SnapshotRejected
from toska_gateway.tls_material import NO_TLS, TlsFilesRefused, TlsMaterial, read_material

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
_SETTLED_S = 0.1


class TlsFiles:
    """Reads what tables name, and says when a file of the table in force has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._watched: Mapping[Path, Stamp] = {}
        self._said: set[tuple[str, str]] = set()
        self._speaking = PickedClusters(lambda _, cluster: cluster.tls is not None)
        self._asked: tuple[Server, Mapping[str, Cluster]] | None = None
        self._read = NO_TLS

    async def read(self, table: RouteTable) -> TlsMaterial:
        """Read everything that a table names.

        Raises:
            toska_gateway.tls_material.TlsFilesRefused: With all that is wrong.
        """
        speaking = self._speaking.of(table)
        if table.server.tls is None and not speaking:
            return NO_TLS
        asked = (table.server, speaking)
        same = self._asked is not None and all(now is then for now, then in zip(asked, self._asked, strict=True))
        if same and {path: stamp(path) for path in self._read.files} == self._read.files:
            return self._read
        self._asked = None
        self._read = await to_thread.run_sync(read_material, table, self._folder)
        self._asked = asked
        return self._read

    def use(self, material: TlsMaterial) -> None:
        """Watch the files of what is in force from now on, and tell what should be known about them."""
        self._watched = material.files
        for event, fields in material.notes:
            if (event, fields["path"]) not in self._said:  # once, and not with every change of a route
                self._said.add((event, fields["path"]))
                log.warning(event, **fields)

    async def renew(
        self, table: RouteTable, before: TlsMaterial, put_in_force: Callable[[TlsMaterial], Awaitable[object]]
    ) -> None:
        """Read again what a table in force names, and have it used if it differs; what cannot be is only told."""
        try:
            material = await self.read(table)
        except TlsFilesRefused as error:
            self._refused(error.problems, error.files)
            return
        try:
            if material.version != before.version:
                await put_in_force(material)
                log.info("tls_files_reloaded", files=len(material.files))
            self.use(material)
        except SnapshotRejected as error:
            self._refused(error.problems, material.files)

    def _refused(self, problems: Sequence[Mapping[str, Any]], files: Mapping[Path, Stamp]) -> None:
        """Tell that changed files cannot be used, and wait for their next change."""
        log.error("tls_files_refused", problems=problems, remedy="what was read before is served on")
        self._watched = files

    async def changed(self) -> None:
        """Return once a watched file is another, and none has changed for a moment."""
        while self._stamps() == self._watched:  # noqa: ASYNC110 - files do not tell
            await anyio.sleep(LOOK_EVERY_S)
        before = self._stamps()
        while True:
            await anyio.sleep(_SETTLED_S)
            now = self._stamps()
            if now == before:
                return
            before = now

    def _stamps(self) -> dict[Path, Stamp]:
        return {path: stamp(path) for path in self._watched}
