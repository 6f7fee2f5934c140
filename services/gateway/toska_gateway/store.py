"""The last good snapshot on disk, so that a gateway serves at once, also while router and registry are down."""

import json
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio import to_thread
from pydantic import BaseModel, ValidationError
from toska_common.contracts.routing import Snapshot
from toska_common.files import keep_aside, write_atomically
from toska_common.routing.versions import endpoints_version, table_version

log = structlog.get_logger(__name__)

_FORMAT = 2
_SETTLE_S = 0.2
"""Changes within this time are written once: endpoints often come and go in bursts, and each write is an fsync."""
_REST = 20
"""So many times as long as the last write took is waited for the next: one of 10,000 routes takes a tenth of a second,
and what has not been written is what the router tells again."""


class SnapshotStore:
    """Keeps one snapshot in `home/gateway/snapshot.json`; reads and writes in a thread, never in the event loop."""

    def __init__(self, home: Path) -> None:
        self.path = home / "gateway" / "snapshot.json"
        self._encoder = _Encoder()
        self._pending: Snapshot | None = None
        self._changed = anyio.Event()
        self._failing = False
        self._took_s = 0.0

    async def load(self) -> Snapshot | None:
        """The snapshot kept last; `None` if there is none, or none that can be read.

        What cannot be read is kept aside, under a name that the log tells.
        """
        return await to_thread.run_sync(self._load)

    def keep(self, snapshot: Snapshot) -> None:
        """Have `run` write this one, unless a newer one comes first."""
        self._pending = snapshot
        self._changed.set()

    async def run(self) -> None:
        """Write what is to be kept, for ever; what is pending when this is cancelled is written before it ends."""
        try:
            while True:
                await self._changed.wait()
                await anyio.sleep(max(_SETTLE_S, _REST * self._took_s))
                began = anyio.current_time()
                await self._write_pending()
                self._took_s = anyio.current_time() - began
        finally:
            with anyio.move_on_after(2, shield=True):
                await self._write_pending()

    async def _write_pending(self) -> None:
        snapshot, self._pending, self._changed = self._pending, None, anyio.Event()
        if snapshot is None:
            return
        try:
            await to_thread.run_sync(self._write, snapshot)
            self._failing = False
        except OSError as error:
            if not self._failing:  # a full disk is said once, not with every change
                log.warning("snapshot_not_kept", path=str(self.path), error=error.strerror or str(error))
            self._failing = True

    def _write(self, snapshot: Snapshot) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.path, self._encoder.encode(snapshot))

    def _load(self) -> Snapshot | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("stored_snapshot_unreadable", path=str(self.path), error=error.strerror or str(error))
            return None
        try:
            return _decode(content)
        except (ValueError, RecursionError) as error:
            self._put_aside(error)
            return None

    def _put_aside(self, error: Exception) -> None:
        reason = f"{error.error_count()} values are wrong" if isinstance(error, ValidationError) else str(error)
        try:
            kept = str(keep_aside(self.path))
        except OSError:
            kept = ""
        log.error(
            "stored_snapshot_corrupt",
            path=str(self.path),
            reason=reason,
            kept_as=kept,
            remedy="started without it; the next snapshot of the router is stored anew",
        )


class _Encoder:
    """Encodes snapshots part by part, remembering each part for as long as snapshots have it.

    In one piece 100,000 endpoints would hold the interpreter for half a second with each change of one of them.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[BaseModel, str]] = {}

    def encode(self, snapshot: Snapshot) -> bytes:
        """The whole file."""
        before, now = self._known, dict[int, tuple[BaseModel, str]]()

        def text(part: BaseModel) -> str:
            known = before.get(id(part)) or (part, part.model_dump_json(exclude_defaults=True))
            now[id(part)] = known
            return known[1]

        table = snapshot.table
        clusters = ",".join(f"{json.dumps(name)}:{text(cluster)}" for name, cluster in table.clusters.items())
        routes = ",".join(map(text, table.routes))
        endpoints = ",".join(f"{json.dumps(name)}:{text(pool)}" for name, pool in snapshot.endpoints.items())
        whole = (
            f'{{"format":{_FORMAT},"snapshot":{{"routes_version":{json.dumps(snapshot.routes_version)},'
            f'"table":{{"server":{text(table.server)},"clusters":{{{clusters}}},"routes":[{routes}]}},'
            f'"endpoints":{{{endpoints}}}}}}}'
        )
        self._known = now
        return whole.encode()


def _decode(content: bytes) -> Snapshot:
    body: Any = json.loads(content)
    if not isinstance(body, dict) or body.get("format") != _FORMAT:  # pyright: ignore[reportUnknownMemberType] - parsed JSON
        raise ValueError("not a snapshot of this format")
    snapshot = Snapshot.model_validate_json(json.dumps(body["snapshot"]))  # pyright: ignore[reportUnknownArgumentType] - as above
    # Versions are hashes of content, so they also tell a file whose values were changed.
    if table_version(snapshot.table) != snapshot.routes_version:
        raise ValueError("its routes are not those of its version")
    for name, cluster in snapshot.endpoints.items():
        if endpoints_version(cluster.endpoints) != cluster.version:
            raise ValueError(f"the endpoints of cluster {name} are not those of their version")
    return snapshot
