"""Rows of the database as the contracts show them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from toska_common import trace
from toska_common.contracts.sagas import SagaAttempt, SagaDetail, SagaSummary
from toska_common.errors import InvalidInput
from toska_common.redaction import redact_fields


def summary(row: Any) -> SagaSummary:
    """A saga in a listing."""
    return SagaSummary.model_validate(_common(row))


def detail(row: Any, attempts: Sequence[Any]) -> SagaDetail:
    """A saga with its history."""
    context = trace.parse_traceparent(row.traceparent)
    return SagaDetail.model_validate(
        {
            **_common(row),
            "input": _shown(row.input),
            "result": _shown(row.result),
            "trace_id": "" if context is None else context.trace_id,
            "attempts": [_attempt(attempt) for attempt in attempts],
        }
    )


def cursor(row: Any) -> str:
    """What names the place of a row in a listing."""
    return f"{row.created_at.isoformat()}~{row.id}"


def read_cursor(text: str) -> tuple[datetime, str]:
    """The place that a cursor names.

    Raises:
        InvalidInput: It is none of ours.
    """
    at, _, saga_id = text.partition("~")
    try:
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        reason = "give `next` of the page before, as it is"
        raise InvalidInput(f"before: {reason}", problems=[{"field": "before", "reason": reason}]) from None
    return moment, saga_id


def _common(row: Any) -> dict[str, Any]:
    names = ("id", "name", "version", "state", "created_at", "updated_at", "finished_at", "deadline_at", "executor")
    more = ("resumes", "failure", "stuck")
    return {
        **{name: getattr(row, name) for name in (*names, *more)},
        "cancel_requested": row.cancel_reason is not None,
    }


def _attempt(row: Any) -> SagaAttempt:
    fields = {name: getattr(row, name) for name in SagaAttempt.model_fields}
    return SagaAttempt.model_validate(fields)


def _shown(value: Any) -> Any:
    return redact_fields({"value": value})["value"]
