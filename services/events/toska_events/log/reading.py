"""Reading the log, over a connection of its own, beside the thread that writes it."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from toska_events.log.rows import Held, Letter, Row
from toska_events.log.schema import connect_to_read

R = TypeVar("R", Row, Letter)

_COLUMNS = "offset, topic, priority, at, due, expires, head, data"
_SPAN = 50_000
"""Offsets that one query looks at, so that a group that wants few of many events keeps nobody else waiting."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the log found.

    Attributes:
        seen: Offset up to which it was looked.
    """

    rows: list[Row]
    seen: int


class LogReading:
    """The file, open for reading. For one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = connect_to_read(path)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def after(
        self, offset: int, upto: int, topics: Sequence[int], *, priority: int | None, limit: int, max_bytes: int
    ) -> Found:
        """Events of some topics in (`offset`, `upto`], and of one priority if that is given, by offset.

        At least one, if there is any, and then as many as `limit` and `max_bytes` allow.
        """
        end = min(upto, offset + _SPAN)
        if not topics:
            return Found([], upto)
        clauses = f"offset > ? AND offset <= ? AND topic IN ({','.join(map(str, topics))})"
        source = "events NOT INDEXED"
        if priority == 1:
            clauses += " AND priority = 1"
        elif priority is not None:
            clauses += f" AND priority <> 1 AND priority = {priority}"
            source, end = "events INDEXED BY events_by_priority", upto
        cursor = self._connection.execute(
            f"SELECT {_COLUMNS} FROM {source} WHERE {clauses} ORDER BY offset LIMIT ?",  # noqa: S608 - numbers of ours
            (offset, end, limit),
        )
        rows, whole = _taken(cursor, limit, max_bytes)
        return Found(rows, end if whole else rows[-1].offset)

    def at(self, offsets: Sequence[int]) -> list[Row]:
        """Those events of these offsets that are there, by offset."""
        marks = ",".join("?" * len(offsets))
        return [
            Row._make(row)
            for row in self._connection.execute(
                f"SELECT {_COLUMNS} FROM events WHERE offset IN ({marks}) ORDER BY offset",  # noqa: S608
                offsets,
            )
        ]

    def first_since(self, moment: int, head: int) -> int:
        """The first offset whose event was stored at or after `moment`; past `head` if none was."""
        # Moments grow with offsets, so halving finds it without an index.
        low, high = 1, head + 1
        while low < high:
            middle = (low + high) // 2
            row = self._connection.execute(
                "SELECT offset, at FROM events WHERE offset >= ? ORDER BY offset LIMIT 1", (middle,)
            ).fetchone()
            if row is None or row[1] >= moment:
                high = middle
            else:
                low = row[0] + 1
        return low

    def held_blocking(self, group: int) -> list[Held]:
        """Everything that keys of a group wait for."""
        return self._held("group_id = ? AND blocks", (group,))

    def held_after(self, group: int, due: int, offset: int, limit: int) -> list[Held]:
        """What else is held for a group, after a moment and an offset, soonest first."""
        return self._held(
            "group_id = ? AND NOT blocks AND (due, offset) > (?, ?) ORDER BY due, offset LIMIT ?",
            (group, due, offset, limit),
        )

    def held_counts(self) -> dict[int, int]:
        """How much is held for each group."""
        return dict(self._connection.execute("SELECT group_id, count(*) FROM held GROUP BY group_id"))

    def _held(self, condition: str, values: tuple[int, ...]) -> list[Held]:
        return [
            Held(group, offset, due, attempts, bool(blocks), reason)
            for group, offset, due, attempts, blocks, reason in self._connection.execute(
                f"SELECT group_id, offset, due, attempts, blocks, reason FROM held WHERE {condition}",  # noqa: S608
                values,
            )
        ]

    def scheduled(self, upto: int, due_after: int, topics: Sequence[int]) -> list[tuple[int, int]]:
        """Offset and moment of events of some topics, up to an offset, that are due after a moment."""
        if not topics:
            return []
        return self._connection.execute(
            "SELECT offset, due FROM events WHERE due > 0 AND due > ? AND offset <= ? "  # noqa: S608
            f"AND topic IN ({','.join(map(str, topics))})",
            (due_after, upto),
        ).fetchall()

    def waiting(self, cursors: Sequence[int | None], topics: Sequence[int]) -> tuple[int, int]:
        """How many events of some topics are after cursors, by priority, and when the oldest was stored, or 0.

        A cursor of `None` has nothing after it.
        """
        count = oldest = 0
        for priority, cursor in enumerate(cursors):
            if cursor is None or not topics:
                continue
            found, at = self._connection.execute(
                f"SELECT count(*), min(at) FROM events NOT INDEXED WHERE offset > ? AND priority = ? "  # noqa: S608
                f"AND topic IN ({','.join(map(str, topics))})",
                (cursor, priority),
            ).fetchone()
            count += found
            oldest = min(filter(None, (oldest, at)), default=0)
        return count, oldest

    def bounds(self, topic: int) -> tuple[int | None, int | None]:
        """First and last offset of a topic."""
        query = "SELECT {}(offset) FROM events INDEXED BY events_by_topic WHERE topic = ?"
        first, last = (self._connection.execute(query.format(of), (topic,)).fetchone()[0] for of in ("min", "max"))
        return first, last

    def dead_counts(self) -> dict[int, int]:
        """How many dead letters each group has."""
        return dict(self._connection.execute("SELECT group_id, count(*) FROM dead GROUP BY group_id"))

    def letters(self, group: str | None, after: int, limit: int, max_bytes: int) -> list[Letter]:
        """Dead letters by id, those after one: at least one, if there is any, and as many as the two limits allow."""
        cursor = self._connection.execute(
            "SELECT dead.id, groups.name, head, data, reason, dead.attempts, died_at "
            "FROM dead JOIN groups ON groups.id = group_id "
            "WHERE dead.id > ? AND (? IS NULL OR groups.name = ?) ORDER BY dead.id LIMIT ?",
            (after, group, group, limit),
        )
        return _fitting(map(Letter._make, cursor), cursor, max_bytes)[0]


def _taken(cursor: sqlite3.Cursor, limit: int, max_bytes: int) -> tuple[list[Row], bool]:
    rows, whole = _fitting(map(Row._make, cursor), cursor, max_bytes)
    return rows, whole and len(rows) < limit


def _fitting(rows: Iterable[R], cursor: sqlite3.Cursor, max_bytes: int) -> tuple[list[R], bool]:
    """Rows until they have so many bytes, and whether these were all that there were."""
    found: list[R] = []
    size = 0
    for row in rows:
        found.append(row)
        size += len(row.head) + len(row.data)
        if size >= max_bytes:
            cursor.close()
            return found, False
    return found, True
