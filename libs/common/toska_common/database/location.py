"""Where a service keeps its tables, as `TOSKA_DATABASE_URL` says it.

- `embedded://`: SQLite in the mesh's home, `router/router.sqlite` for the router
- `sqlite:///srv/mesh`: the same in this folder, `/srv/mesh/router.sqlite`
- `postgresql://user:password@host:5432/mesh?sslmode=verify-full`: a schema of PostgreSQL, `toska_router`; whatever
  libpq knows as a parameter can be given
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

SCHEMES = ("embedded", "sqlite", "postgresql")


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseLocation:
    """Of one service: a file of SQLite, or a schema of PostgreSQL.

    Attributes:
        service: Its short name, such as `router`.
        file: SQLite's.
        dsn: PostgreSQL's, with the password; never to be shown.
    """

    service: str
    file: Path | None = None
    dsn: str = ""

    @property
    def schema(self) -> str:
        """The schema of PostgreSQL."""
        return f"toska_{self.service}"

    def __str__(self) -> str:
        if self.file is not None:
            return f"SQLite in {self.file}"
        parts = urlsplit(self.dsn)
        host = f"{parts.hostname or 'localhost'}{f':{parts.port}' if parts.port else ''}"
        return f"PostgreSQL at {host}{parts.path}, schema {self.schema}"


def check_database_url(url: str) -> str:
    """Let a URL pass that `parse_location` can read.

    Raises:
        ValueError: It names no database of ours; the text does not repeat it, since it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("write embedded://, sqlite:///a/folder or postgresql://user:password@host:port/database")
    if parts.scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError("write sqlite:///a/folder, with three slashes; each service has a file of its own in it")
    if parts.scheme == "postgresql" and not parts.path.strip("/"):
        raise ValueError("name the database: postgresql://user:password@host:port/database")
    _ = parts.port  # raises, if it is none
    return url


def parse_location(url: str, *, service: str, home: Path) -> DatabaseLocation:
    """Where `service` keeps its tables by a URL that was checked."""
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        return DatabaseLocation(service, file=home / service / f"{service}.sqlite")
    if parts.scheme == "sqlite":
        return DatabaseLocation(service, file=Path(unquote(parts.path)) / f"{service}.sqlite")
    return DatabaseLocation(service, dsn=url)
