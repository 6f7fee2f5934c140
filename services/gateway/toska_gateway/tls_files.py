"""The files of TLS in use: read when the routing names them, looked at every second, and read again when they change.

What cannot be used is refused with its reason and what was in use stays, so a renewal that writes certificate and key
one after the other does no harm in between.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread
from toska_common.contracts.routing import RouteTable

from toska_gateway.tls_material import NO_TLS, Stamp, TlsMaterial, read_material, stamp

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
_SETTLED_S = 0.1


class TlsFiles:
    """Reads what tables name, and says when a file of the table in force has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._watched: Mapping[Path, Stamp] = {}
        self._said: set[tuple[str, str]] = set()

    async def read(self, table: RouteTable) -> TlsMaterial:
        """Read everything that a table names.

        Raises:
            toska_gateway.tls_material.TlsFilesRefused: With all that is wrong.
        """
        if table.server.tls is None and all(cluster.tls is None for cluster in table.clusters.values()):
            return NO_TLS
        return await to_thread.run_sync(read_material, table, self._folder)

    def use(self, material: TlsMaterial) -> None:
        """Watch the files of what is in force from now on, and tell what should be known about them."""
        self._watched = material.files
        for event, fields in material.notes:
            if (event, fields["path"]) not in self._said:  # once, and not with every change of a route
                self._said.add((event, fields["path"]))
                log.warning(event, **fields)

    def refused(self, problems: Sequence[Mapping[str, Any]], files: Mapping[Path, Stamp]) -> None:
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
