"""Column types that mean the same in SQLite and PostgreSQL, and how constraints are named in both."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""For `MetaData(naming_convention=NAMES)`: a constraint without a name cannot be migrated."""

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A whole number of 64 bits."""


class Moment(sa.TypeDecorator[datetime]):
    """A point in time, always with its zone: SQLite, which knows none, is given and gives UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment has a zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
