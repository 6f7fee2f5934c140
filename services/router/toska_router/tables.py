"""The router's tables: what holds, and how it came to be so.

A *revision* is one change of the whole: who made it, when and why, with everything that was different after it. What
holds is what the newest change of each name left, kept beside so that a start reads only that.
"""

import sqlalchemy as sa
from toska_common.database.columns import NAMES, Moment, Number

METADATA = sa.MetaData(naming_convention=NAMES)

REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column("revision", Number, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("source", sa.String(32), nullable=False),
    sa.Column("credential", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("reason", sa.String(1024), nullable=False),
)
"""In the order in which they were committed, without gaps; the newest is the state's."""

CHANGES = sa.Table(
    "changes",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("revision", Number, sa.ForeignKey("revisions.revision"), primary_key=True, index=True),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("body", sa.JSON(none_as_null=True), nullable=True),
)
"""What each revision left of a resource: its body, or nothing where it was taken away."""

RESOURCES = sa.Table(
    "resources",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("revision", Number, nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)
"""What holds now."""

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("body", sa.JSON, nullable=False),
)
"""Rollouts and experiments as they are now, and who leads them."""

RUN_EVENTS = sa.Table(
    "run_events",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("sequence", Number, primary_key=True, autoincrement=False),
    sa.Column("body", sa.JSON, nullable=False),
)
"""What became of them, with the evidence."""

TALLIES = sa.Table(
    "tallies",
    METADATA,
    sa.Column("token", sa.String(200), primary_key=True),
    sa.Column("epoch", sa.String(64), primary_key=True),
    sa.Column("sequence", Number, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
)
"""What each gateway has counted under each token that is watched: its newest report."""
