"""A service's database: SQLite in the mesh's home, or PostgreSQL; chosen by `TOSKA_DATABASE_URL`.

SQLAlchemy, the drivers and Alembic (extra `[sql]`) are loaded when a database is first used, off the event loop: they
take 18 MiB and up to a second, which a mesh that stores nothing need not pay.
"""

from toska_common.database.database import Database
from toska_common.database.errors import DatabaseUnavailable
from toska_common.database.location import DatabaseLocation, parse_location

__all__ = ["Database", "DatabaseLocation", "DatabaseUnavailable", "parse_location"]
