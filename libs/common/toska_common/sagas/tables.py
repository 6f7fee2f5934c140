"""The tables of sagas: what people and other processes are told of them. What was done is DBOS's to remember."""

import sqlalchemy as sa

from toska_common.database.columns import NAMES, Moment, Number

METADATA = sa.MetaData(naming_convention=NAMES)

SAGAS = sa.Table(
    "sagas",
    METADATA,
    sa.Column("id", sa.String(128), primary_key=True),
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
    sa.Index("ix_sagas_created_at", "created_at", "id"),
    sa.Index("ix_sagas_state", "state"),
    sa.Index("ix_sagas_finished_at", "finished_at"),
)
"""One row each; `cancel_reason` is there once somebody wants it cancelled."""

ATTEMPTS = sa.Table(
    "saga_attempts",
    METADATA,
    sa.Column("saga_id", sa.String(128), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
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
)
"""One row for each attempt, in the order in which the saga made them."""

SLOTS = sa.Table(
    "saga_slots",
    METADATA,
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", Number, nullable=False),
    sa.Column("expires_at_ms", Number, nullable=False),
    sa.Column("process", sa.String(128), nullable=False),
)
"""Places for processes. `holder` counts those who have had the slot, so no two of them are ever taken for each other;
`expires_at_ms` is by the database's clock, the only one that all of them share."""
