"""What the log's file holds of groups: their rows, what is held for later, and dead letters."""

import sqlite3
import struct
from collections.abc import Sequence

from toska_events.log.rows import Changes, GroupRow, Held

_OPEN = struct.Struct("<qI")
"""An offset that is neither settled nor held, and its attempts."""


def insert_group(connection: sqlite3.Connection, group: GroupRow) -> None:
    """Store a group that is new; it is given its id."""
    row = connection.execute(
        "INSERT INTO groups (name, patterns, ordered, attempts, low, normal, high, delivered, acked, open) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, x'') RETURNING id",
        (group.name, " ".join(group.patterns), group.ordered, group.attempts, *group.cursors),
    ).fetchone()
    group.id = row[0]


def delete_group(connection: sqlite3.Connection, group_id: int) -> None:
    """Forget a group, what is held for it, and its dead letters."""
    for statement in (
        "DELETE FROM groups WHERE id = ?",
        "DELETE FROM held WHERE group_id = ?",
        "DELETE FROM dead WHERE group_id = ?",
    ):
        connection.execute(statement, (group_id,))


def read_groups(connection: sqlite3.Connection) -> list[GroupRow]:
    """Every group, as it was stored last."""
    return [
        GroupRow(
            id_, name, tuple(patterns.split()), bool(ordered), attempts, (low, normal, high), delivered, acked,
            list(_OPEN.iter_unpack(packed)),
        )
        for id_, name, patterns, ordered, attempts, low, normal, high, delivered, acked, packed in connection.execute(
            "SELECT id, name, patterns, ordered, attempts, low, normal, high, delivered, acked, open FROM groups"
        )
    ]  # fmt: skip


def store_changes(connection: sqlite3.Connection, changes: Changes) -> None:
    """Store what has changed; within a transaction of the caller's."""
    connection.executemany(
        "UPDATE groups SET patterns = ?, ordered = ?, attempts = ?, low = ?, normal = ?, high = ?, "
        "delivered = ?, acked = ?, open = ? WHERE id = ?",
        [
            (
                " ".join(group.patterns),
                group.ordered,
                group.attempts,
                *group.cursors,
                group.delivered,
                group.acked,
                b"".join(_OPEN.pack(offset, attempts) for offset, attempts in group.open),
                group.id,
            )
            for group in changes.groups
        ],
    )
    if changes.released:
        connection.executemany("DELETE FROM held WHERE group_id = ? AND offset = ?", changes.released)
    hold(connection, changes.held)
    if changes.dead:
        connection.executemany(
            "INSERT INTO dead (group_id, offset, topic, head, data, reason, attempts, died_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            changes.dead,
        )


def hold(connection: sqlite3.Connection, held: Sequence[Held]) -> None:
    """Hold events for later."""
    if held:
        connection.executemany("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?)", held)
