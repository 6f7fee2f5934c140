"""The routing file's text that was good last, in a file of the router's own: a restart may meet a bad one."""

from pathlib import Path

import structlog
from toska_common.contracts import Contract
from toska_common.errors import ConfigurationError
from toska_common.files import keep_aside, write_atomically

log = structlog.get_logger(__name__)


class LastGood(Contract):
    """The text that was last read from a routing file without a problem."""

    path: str
    text: str


class LastGoodStore:
    """Keeps it.

    Args:
        folder: Made if it is not there; `home/router`.

    Raises:
        ConfigurationError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._kept = folder / "last-good-file.json"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot write the state folder {folder}: {error.strerror or error}") from error

    def load(self, path: Path) -> str | None:
        """The text that was good last in the routing file at `path`."""
        try:
            kept = LastGood.model_validate_json(self._kept.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._kept}: {error.strerror or error}") from error
        except ValueError as error:
            aside = keep_aside(self._kept)
            log.error("last_good_file_corrupt", kept_as=str(aside), reason=str(error))
            return None
        return kept.text if kept.path == str(path) else None

    def save(self, path: Path, text: str) -> None:
        """Remember the text of the routing file at `path`."""
        write_atomically(self._kept, LastGood(path=str(path), text=text).model_dump_json().encode())
