"""The last good keys on disk, so that a gateway verifies tokens at once, also while the keys' servers are away."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

import anyio
import structlog
from anyio import to_thread
from toska_common.files import keep_aside, write_atomically

from toska_gateway.issuer_keys.follower import KeyFollower
from toska_gateway.issuer_keys.readers import usable_keys

log = structlog.get_logger(__name__)

_FORMAT: Final = 1
_SETTLE_S: Final = 0.2


class KeyStore:
    """Keeps the sets that were fetched in `home/gateway/issuer-keys.json`; public keys only."""

    def __init__(self, home: Path) -> None:
        self.path = home / "gateway" / "issuer-keys.json"
        self._stored: dict[str, Any] | None = None
        self._changed = anyio.Event()

    async def fill(self, follower: KeyFollower) -> None:
        """Give a follower what was kept of its source."""
        if self._stored is None:
            self._stored = await to_thread.run_sync(self._load)
        kept: Any = self._stored.get(follower.source.name)
        if kept is None:
            return
        try:
            found = usable_keys({"keys": kept["keys"]}, follower.source.algorithms, 0.0)
            follower.start_with(found, datetime.fromisoformat(kept["read_at"]))
        except (KeyError, TypeError, ValueError) as error:
            log.error("stored_keys_unusable", source=follower.source.title, reason=str(error))

    def keep_soon(self) -> None:
        """Have `run` write what there is."""
        self._changed.set()

    async def run(self, followers: Callable[[], Mapping[str, KeyFollower]]) -> None:
        """Write what is to be kept, for ever."""
        while True:
            await self._changed.wait()
            await anyio.sleep(_SETTLE_S)
            self._changed = anyio.Event()
            kept = {
                name: {
                    "source": follower.source.title,
                    "read_at": follower.read_at.isoformat(),
                    "keys": [dict(key) for key in follower.found.content.keys],
                }
                for name, follower in followers().items()
                if follower.source.url is not None and follower.found is not None and follower.read_at is not None
            }
            try:
                await to_thread.run_sync(self._write, kept)
            except OSError as error:
                log.warning("issuer_keys_not_kept", path=str(self.path), error=error.strerror or str(error))

    def _write(self, kept: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"format": _FORMAT, "sources": kept}, indent=1).encode())

    def _load(self) -> dict[str, Any]:
        try:
            body: Any = json.loads(self.path.read_bytes())
            if body["format"] != _FORMAT or not isinstance(body["sources"], dict):
                raise ValueError("not of this format")
            return cast("dict[str, Any]", body["sources"])
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.error("stored_keys_unreadable", path=str(self.path), error=error.strerror or str(error))
        except (KeyError, TypeError, ValueError, RecursionError):
            log.error("stored_keys_corrupt", path=str(self.path), kept_as=self._put_aside())
        return {}

    def _put_aside(self) -> str:
        try:
            return str(keep_aside(self.path))
        except OSError:
            return ""
