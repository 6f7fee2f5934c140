"""The API's routes and clusters on disk (`home/router/routes.json`), and the routing file's text that was good last.

Both are written whole or not at all. A file that cannot be read is kept aside under another name and said loudly; the
router then starts without what was in it.
"""

import json
from pathlib import Path

import structlog
from toska_common.contracts import Contract
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import ConfigurationError
from toska_common.files import keep_aside, write_atomically
from toska_common.routing.document import InvalidDocument, load_resource

log = structlog.get_logger(__name__)


class LastGood(Contract):
    """The text that was last read from a routing file without a problem."""

    path: str
    text: str


class RoutesStore:
    """State of the router that outlives it.

    Args:
        folder: Made if it is not there; `home/router`.
    """

    def __init__(self, folder: Path) -> None:
        self._own = folder / "routes.json"
        self._last_good = folder / "last-good-file.json"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot write the state folder {folder}: {error.strerror or error}") from error

    def load(self) -> RoutingDocument:
        """The API's routes and clusters; none at the first start, and none if the file cannot be read."""
        content = _read(self._own)
        if content is None:
            return RoutingDocument()
        try:
            # Not checked for what leads nowhere: the file's clusters may be what its routes lead to.
            return load_resource(RoutingDocument, content, source=str(self._own))
        except InvalidDocument as error:
            aside = keep_aside(self._own)
            log.error("routes_store_corrupt", path=str(self._own), kept_as=str(aside), reason=error.detail)
            return RoutingDocument()

    def save(self, own: RoutingDocument) -> None:
        """Replace the API's routes and clusters; durable when this returns."""
        body = own.model_dump(mode="json", exclude_defaults=True)
        write_atomically(self._own, json.dumps(body, indent=1, ensure_ascii=False).encode())

    def load_last_good(self, path: Path) -> str | None:
        """The text that was good last in the routing file at `path`."""
        content = _read(self._last_good)
        if content is None:
            return None
        try:
            kept = LastGood.model_validate_json(content)
        except ValueError as error:
            aside = keep_aside(self._last_good)
            log.error("last_good_file_corrupt", kept_as=str(aside), reason=str(error))
            return None
        return kept.text if kept.path == str(path) else None

    def save_last_good(self, path: Path, text: str) -> None:
        """Remember the text of the routing file at `path`."""
        write_atomically(self._last_good, LastGood(path=str(path), text=text).model_dump_json().encode())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
