"""Sagas, their attempts, and the slots of the processes that run them."""

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
        "sagas",
        sa.Column("id", sa.String(128)),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("input", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("failure", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("stuck", sa.String(1024), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("updated_at", Moment, nullable=False),
        sa.Column("finished_at", Moment, nullable=True),
        sa.Column("deadline_at", Moment, nullable=True),
        sa.Column("executor", sa.String(128), nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("cancel_reason", sa.String(512), nullable=True),
        sa.Column("resumes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sagas"),
    )
    op.create_index("ix_sagas_created_at", "sagas", ["created_at", "id"])
    op.create_index("ix_sagas_state", "sagas", ["state"])
    op.create_index("ix_sagas_finished_at", "sagas", ["finished_at"])
    op.create_table(
        "saga_attempts",
        sa.Column("saga_id", sa.String(128)),
        sa.Column("sequence", sa.Integer, autoincrement=False),
        sa.Column("step", sa.String(64), nullable=False),
        sa.Column("occurrence", sa.Integer, nullable=False),
        sa.Column("compensation", sa.Boolean, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("begun", sa.Integer, nullable=False),
        sa.Column("executor", sa.String(128), nullable=False),
        sa.Column("idempotency_key", sa.String(64), nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("finished_at", Moment, nullable=True),
        sa.Column("outcome", sa.String(16), nullable=True),
        sa.Column("detail", sa.String(1024), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("saga_id", "sequence", name="pk_saga_attempts"),
    )
    op.create_table(
        "saga_slots",
        sa.Column("slot", sa.Integer, autoincrement=False),
        sa.Column("holder", Number, nullable=False),
        sa.Column("expires_at_ms", Number, nullable=False),
        sa.Column("process", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("slot", name="pk_saga_slots"),
    )
