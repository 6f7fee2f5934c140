"""The file in which older releases kept what the API had: taken over once, and then kept aside.

home/router/routes.json ──the database has no revision yet──▶ revision 1, by `import`
                        ──it has──────────────────────────▶ left out, and said so
and from then on home/router/routes.json.taken-over
"""

from pathlib import Path

import structlog
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import ConfigurationError
from toska_common.files import keep_aside
from toska_common.routing.document import InvalidDocument, load_resource

log = structlog.get_logger(__name__)


class OldFile:
    """What is left of an older release, if anything."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "routes.json"

    def read(self) -> RoutingDocument | None:
        """What the file has; one that cannot be read is kept aside under another name, and said loudly."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"cannot read {self._path}: {error.strerror or error}") from error
        try:
            # Not checked for what leads nowhere: the routing file's clusters may be what its routes lead to.
            return load_resource(RoutingDocument, content, source=str(self._path))
        except InvalidDocument as error:
            aside = keep_aside(self._path)
            log.error("routes_file_of_older_release_corrupt", kept_as=str(aside), reason=error.detail)
            return None

    def keep_aside(self, *, taken_over: bool) -> None:
        """Move the file out of the way; safe to be called again after a crash."""
        aside = self._path.with_name(f"{self._path.name}.taken-over")
        self._path.replace(aside)
        if taken_over:
            log.info("routes_file_of_older_release_taken_over", kept_as=str(aside))
        else:
            log.warning(
                "routes_file_of_older_release_left_out", kept_as=str(aside), reason="the database has revisions"
            )
