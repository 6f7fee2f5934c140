"""A saga drawn for people: forwards in one lane, back in another, each attempt where it was in time.

0.000 s  │ reserve        done      12 ms  █·······················
0.014 s  │ charge         failed   301 ms  ·████████████···········  no route to payments
0.335 s  │ charge, try 2  done      15 ms  ·············█··········
0.351 s  ✘ ship           refused    3 ms  ··············█·········  no ship for you
         ╰─╮ turned back: ship refused: no ship for you
0.360 s    │ undo charge  done     …
0.390 s    ● compensated
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from toska_common.contracts.sagas import OutcomeKind, SagaAttempt, SagaDetail, SagaFailure, SagaState

_BAR: Final = 24
_DATA_CHARS: Final = 300
_BACK: Final = "  "
"""How far the lane of compensations stands to the right of the other."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One attempt as it is drawn; `at` and `took` are seconds."""

    at: float
    lane: str
    name: str
    outcome: str
    took: float
    detail: str


def draw(saga: SagaDetail, now: datetime) -> Iterator[str]:
    """Lines for a terminal; what runs is drawn until `now`."""
    yield f"{saga.name} version {saga.version}  {saga.id}: {saga.state}"
    yield from _facts(saga)
    yield ""
    forwards = [one for one in saga.attempts if not one.compensation]
    back = [one for one in saga.attempts if one.compensation]
    end = saga.finished_at or max([now, *(one.started_at for one in saga.attempts)])
    lines = [_line(one, saga, end) for one in (*forwards, *back)]
    widths = _widths(lines)
    whole_s = max((end - saga.created_at).total_seconds(), 0.001)
    yield from (_drawn(line, widths, whole_s) for line in lines[: len(forwards)])
    if saga.failure is not None:
        yield f"{'':>10}  ╰─╮ turned back: {_reason(saga.failure)}"
    yield from (_drawn(line, widths, whole_s) for line in lines[len(forwards) :])
    yield _last(saga, back=saga.failure is not None)


def _facts(saga: SagaDetail) -> Iterator[str]:
    took = "" if saga.finished_at is None else f", took {_span(saga.finished_at - saga.created_at)}"
    yield f"  started   {saga.created_at.astimezone():%Y-%m-%d %H:%M:%S %Z}{took}"
    if saga.deadline_at is not None and not saga.state.is_final and saga.failure is None:
        yield f"  deadline  {saga.deadline_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    yield f"  executor  {saga.executor}"
    if saga.trace_id:
        yield f"  trace     {saga.trace_id}"
    if saga.resumes:
        yield f"  resumed   {saga.resumes} times"
    for name, value in (("input", saga.input), ("result", saga.result)):
        if value is not None:
            yield f"  {name:<9} {_data(value)}"


def _line(attempt: SagaAttempt, saga: SagaDetail, end: datetime) -> _Line:
    finished = attempt.finished_at or end
    outcome = _outcome(attempt, saga)
    died = f"processes died in the middle of it: begun {attempt.begun} times" if attempt.begun > 1 else ""
    return _Line(
        at=(attempt.started_at - saga.created_at).total_seconds(),
        lane=f"{_BACK if attempt.compensation else ''}{'│' if outcome in ('done', 'running') else '✘'}",
        name=_name(attempt),
        outcome=outcome,
        took=max((finished - attempt.started_at).total_seconds(), 0.0),
        detail="; ".join(part for part in (attempt.detail, died) if part),
    )


def _outcome(attempt: SagaAttempt, saga: SagaDetail) -> str:
    if attempt.outcome is not None:
        return attempt.outcome.value
    runs = saga.state in (SagaState.RUNNING, SagaState.COMPENSATING) and attempt.executor == saga.executor
    return "running" if runs else "died"


def _name(attempt: SagaAttempt) -> str:
    name = f"undo {attempt.step}" if attempt.compensation else attempt.step
    if attempt.occurrence > 1:
        name += f" #{attempt.occurrence}"
    return f"{name}, try {attempt.number}" if attempt.number > 1 else name


def _widths(lines: Sequence[_Line]) -> tuple[int, int]:
    """Of the lane with the name, and of the outcome."""
    named = max((len(line.lane) + 1 + len(line.name) for line in lines), default=0)
    return named, max((len(line.outcome) for line in lines), default=0)


def _drawn(line: _Line, widths: tuple[int, int], whole_s: float) -> str:
    named = f"{line.lane} {line.name}".ljust(widths[0])
    took = _span(timedelta(seconds=line.took))
    bar = _bar(line.at / whole_s, line.took / whole_s)
    return f"{line.at:8.3f} s  {named}  {line.outcome:<{widths[1]}}  {took:>8}  {bar}  {line.detail}".rstrip()


def _bar(start: float, share: float) -> str:
    first = min(max(int(start * _BAR), 0), _BAR - 1)
    length = min(max(round(share * _BAR), 1), _BAR - first)
    return "·" * first + "█" * length + "·" * (_BAR - first - length)


def _last(saga: SagaDetail, *, back: bool) -> str:
    lane = _BACK if back else ""
    if saga.finished_at is not None:
        return f"{(saga.finished_at - saga.created_at).total_seconds():8.3f} s  {lane}● {saga.state}"
    words = {
        SagaState.STUCK: f"■ stuck: {saga.stuck}",
        SagaState.RUNNING: "○ is to be cancelled" if saga.cancel_requested else "○ under way",
    }
    return f"{'':>10}  {lane}{words.get(saga.state, '○ is being undone')}"


def _reason(failure: SagaFailure) -> str:
    where = f"{failure.step} " if failure.step else ""
    cancelled = failure.outcome == OutcomeKind.CANCELLED
    return f"{where}{failure.outcome}{'' if cancelled and not failure.detail else ': ' + failure.detail}"


def _data(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _DATA_CHARS else f"{text[:_DATA_CHARS]}… (--json has all of it)"


def _span(length: timedelta) -> str:
    seconds = length.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
