"""What can be wrong with a database."""

from toska_common.errors import UpstreamUnavailable


class DatabaseUnavailable(UpstreamUnavailable):
    """The database does not answer, or cannot be written; nothing was changed, unless `detail` says otherwise."""

    code, title = "database-unavailable", "Database unavailable"

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}
