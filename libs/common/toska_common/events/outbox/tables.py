"""The tables of outbox and inbox, for a service to have among its own.

With Alembic: pass `target_metadata=[MINE, toska_common.events.outbox.METADATA]` for `--autogenerate`, or write
`create_outbox(op)` and `create_inbox(op)` into a migration.
"""

from typing import Protocol

import sqlalchemy as sa

from toska_common.database.columns import NAMES, Moment, Number

LONGEST = 255
"""Characters of a key, and of what tells events apart."""

METADATA = sa.MetaData(naming_convention=NAMES)

OUTBOX = sa.Table(
    "toska_outbox",
    METADATA,
    sa.Column("seq", Number, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(LONGEST), nullable=True),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("deliver_at", Moment, nullable=True),
    sa.Column("expires_at", Moment, nullable=True),
    sa.Column("written_at", Moment, nullable=False),
    sa.Column("refused", sa.String(500), nullable=True),
    sqlite_autoincrement=True,
)
"""Events committed and not yet confirmed; `refused` holds back the key of one that the broker will not take."""

RELAYS = sa.Table(
    "toska_relays",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)
"""Whose turn it is to publish: one relay at a time, so that keys keep their order. By the database's own clock."""

INBOX = sa.Table(
    "toska_inbox",
    METADATA,
    sa.Column("consumer", sa.String(80), primary_key=True),
    sa.Column("source", sa.String(LONGEST), primary_key=True),
    sa.Column("id", sa.String(LONGEST), primary_key=True),
    sa.Column("handled_at", Moment, nullable=False, index=True),
)
"""Events whose effects were committed."""


class Operations(Protocol):
    """Of Alembic's `op`, what is used here."""

    def get_bind(self) -> sa.Connection: ...


def create_outbox(op: Operations) -> None:
    """Make the tables of an outbox, in a migration's `upgrade`."""
    METADATA.create_all(op.get_bind(), [OUTBOX, RELAYS], checkfirst=False)


def drop_outbox(op: Operations) -> None:
    """Drop them, in its `downgrade`: events that were not published go with them."""
    METADATA.drop_all(op.get_bind(), [OUTBOX, RELAYS], checkfirst=False)


def create_inbox(op: Operations) -> None:
    """Make the table of an inbox."""
    METADATA.create_all(op.get_bind(), [INBOX], checkfirst=False)


def drop_inbox(op: Operations) -> None:
    """Drop it."""
    METADATA.drop_all(op.get_bind(), [INBOX], checkfirst=False)
