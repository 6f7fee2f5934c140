"""Resources, and the revisions that they went through."""

import sqlalchemy as sa
from alembic import op
from toska_common.database.columns import Moment, Number

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the three tables of the first release."""
    op.create_table(
        "revisions",
        sa.Column("revision", Number, autoincrement=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("credential", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("reason", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_revisions"),
    )
    op.create_table(
        "changes",
        sa.Column("kind", sa.String(16)),
        sa.Column("name", sa.String(128)),
        sa.Column("revision", Number),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["revision"], ["revisions.revision"], name="fk_changes_revision"),
        sa.PrimaryKeyConstraint("kind", "name", "revision", name="pk_changes"),
    )
    op.create_index("ix_changes_revision", "changes", ["revision"])
    op.create_table(
        "resources",
        sa.Column("kind", sa.String(16)),
        sa.Column("name", sa.String(128)),
        sa.Column("revision", Number, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_resources"),
    )
