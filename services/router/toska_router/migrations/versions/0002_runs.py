"""Rollouts and experiments, their history, and what gateways have counted."""

import sqlalchemy as sa
from alembic import op
from toska_common.database.columns import Number

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "runs",
        sa.Column("kind", sa.String(16)),
        sa.Column("name", sa.String(128)),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_runs"),
    )
    op.create_table(
        "run_events",
        sa.Column("kind", sa.String(16)),
        sa.Column("name", sa.String(128)),
        sa.Column("sequence", Number, autoincrement=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "sequence", name="pk_run_events"),
    )
    op.create_table(
        "tallies",
        sa.Column("token", sa.String(200)),
        sa.Column("epoch", sa.String(64)),
        sa.Column("sequence", Number, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("token", "epoch", name="pk_tallies"),
    )
