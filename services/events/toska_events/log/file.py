"""The event log as a plain object over its SQLite file, for the one thread that writes; time is passed in.

Offsets count up by one from 1 and are never given out again: the last one is stored when what had it is removed. An
append is a transaction: all of it is stored or none. Doubles of events that were stored lately, by source and id, are
left out, so that a publisher whose confirmation was lost may send again.

Events go in by statements of many rows: each statement gives up the interpreter's lock once, and with a busy event loop
getting it back can take milliseconds.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from toska_common.events.embedded.records import Publication
from toska_common.events.errors import LogFull

from toska_events.log.doubles import Doubles
from toska_events.log.group_rows import delete_group, hold, insert_group, read_groups, store_changes
from toska_events.log.room import Room, raise_if_full
from toska_events.log.rows import Changes, Dead, GroupRow, Held, Row, Topic
from toska_events.log.schema import connect
from toska_events.log.topics import MAX_TOPICS, Topics, begin

if TYPE_CHECKING:
    from collections.abc import Generator

_MOST_ROWS = 128

_INSERTS = {
    count: f"INSERT INTO events VALUES {','.join(['(?,?,?,?,?,?,?,?)'] * count)}"  # noqa: S608 - marks only
    for count in (1, 2, 4, 8, 16, 32, 64, _MOST_ROWS)
}


class LogFile:
    """The file, open for writing.

    Attributes:
        head: The last offset that was given out.
        topics: Every topic, with what is in it.
        groups: What was stored of groups when it was opened.
        room: How large it is, and may be.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, max_bytes: int, max_topics: int = MAX_TOPICS
    ) -> None:
        self.path = path
        self.head = 0
        self.groups: list[GroupRow] = []
        self.room = Room(connection, max_bytes)
        self.topics = Topics(connection, max_topics)
        self._doubles = Doubles()
        self._connection = connection
        self._last_at = 0
        self._load()

    @classmethod
    def open(
        cls, path: Path, *, fsync_commits: bool = True, max_bytes: int = 1 << 30, max_topics: int = MAX_TOPICS
    ) -> "LogFile":
        """Open the file at `path`, making it if need be; the caller holds the lock beside it.

        Raises:
            ConfigurationError: It is broken, of a later version, something else, or cannot be used.
        """
        connection = connect(path, fsync_commits=fsync_commits)
        with ExitStack() as undo:
            undo.callback(connection.close)
            opened = cls(connection, path, max_bytes, max_topics)
            undo.pop_all()
        return opened

    def close(self) -> None:
        """Store the counts, and close the file; without room for them they are made anew when it is opened."""
        try:
            with suppress(LogFull, sqlite3.Error):
                self.save(Changes())
        finally:
            self._connection.close()

    def append(self, publications: Iterable[Publication], now: int) -> list[Row]:
        """Store events at `now`; returns those that are new, by offset, once they are as safe as the policy says.

        Raises:
            LogFull: There is no room; nothing was stored.
            EventRefused: There are too many topics; nothing was stored.
        """
        now = self._last_at = max(now, self._last_at)
        fresh = self._doubles.leave_out(publications)
        with self._transaction(many=True):
            rows = self._rows_of(fresh.values(), now)
            self._insert(rows)
        self.head += len(rows)
        self.topics.count(rows)
        self._doubles.remember(fresh)
        return rows

    def save(self, changes: Changes) -> None:
        """Store what has changed in groups, and the counts of topics, all at once.

        Raises:
            LogFull: The disk is.
        """
        if not changes and self.topics.are_counted:
            return
        with self._reserve():
            store_changes(self._connection, changes)
            self._save_counts()
        self.topics.counts_saved()

    def make_group(self, group: GroupRow) -> None:
        """Store a group that is new; it is given its id.

        Raises:
            LogFull: The disk is. A log that is full itself takes it: a group may be what empties it.
        """
        with self._reserve():
            insert_group(self._connection, group)

    def drop_group(self, group_id: int) -> None:
        """Forget a group, and its dead letters."""
        with self._reserve():
            delete_group(self._connection, group_id)

    def clear_held(self, group_id: int) -> None:
        """Have nothing held for a group."""
        with self._reserve():
            self._connection.execute("DELETE FROM held WHERE group_id = ?", (group_id,))

    def put_topic(self, name: str, settings: str, time_to_live: int) -> Topic:
        """Create a topic, or set it anew.

        Raises:
            LogFull: There is no room.
            EventRefused: There are too many topics.
        """
        with self._transaction():
            topic = self.topics.find(name) or self.topics.make(name)
            self._connection.execute(
                "UPDATE topics SET settings = ?, time_to_live = ? WHERE id = ?", (settings, time_to_live, topic.id)
            )
        topic.settings, topic.time_to_live = settings, time_to_live
        return topic

    def drop_topic(self, topic: Topic) -> list[int]:
        """Forget a topic and its events; returns the offsets of those that were held."""
        with self._reserve():
            held = self._connection.execute(
                "SELECT DISTINCT offset FROM held JOIN events USING (offset) WHERE topic = ?", (topic.id,)
            ).fetchall()
            self._connection.execute(
                "DELETE FROM held WHERE offset IN (SELECT offset FROM events WHERE topic = ?)", (topic.id,)
            )
            self._connection.execute("DELETE FROM events WHERE topic = ?", (topic.id,))
            self._connection.execute("DELETE FROM topics WHERE id = ?", (topic.id,))
            self._save_head()
        self.topics.forget(topic)
        return [offset for (offset,) in held]

    def remove(
        self, topic: int, upto: int, before: int, kept: Sequence[int], *, after: int, limit: int, enough: int | None
    ) -> tuple[int, int]:
        """Forget settled events of a topic: those in (`after`, `upto`] that were stored before `before`, oldest first.

        Held events and those in `kept` stay, and so does the rest once `enough` bytes are gone. Returns how many bytes
        went, and the offset up to which was looked, 0 once there is nothing more to look at.
        """
        if topic not in self.topics:
            return 0, 0
        found = self._connection.execute(
            "SELECT offset, length(head) + length(data), EXISTS (SELECT 1 FROM held WHERE held.offset = events.offset) "
            "FROM events INDEXED BY events_by_topic WHERE topic = ? AND offset > ? AND offset <= ? AND at < ? "
            "ORDER BY offset LIMIT ?",
            (topic, after, upto, before, limit),
        ).fetchall()
        pinned, gone, size = set(kept), list[int](), 0
        for offset, bytes_, held in found:
            if held or offset in pinned:
                continue
            if enough is not None and size >= enough:
                break
            gone.append(offset)
            size += bytes_
        if gone:
            self._delete(topic, gone, size)
        return size, found[-1][0] if len(found) == limit else 0

    def _delete(self, topic_id: int, offsets: list[int], size: int) -> None:
        topic = self.topics.get(topic_id)
        self.topics.recount(topic, events=-len(offsets), size=-size)
        try:
            with self._reserve():
                self._connection.execute(
                    "DELETE FROM events WHERE offset IN (SELECT value FROM json_each(?))", (json.dumps(offsets),)
                )
                self._save_counts()
        except (sqlite3.Error, LogFull):
            self.topics.recount(topic, events=len(offsets), size=size)
            raise
        self.topics.counts_saved()

    def shrink(self) -> None:
        """Give freed pages back to the file system, a few at a time.

        Raises:
            LogFull: The disk is, and this writes before it frees.
        """
        with self._reserve():
            self._connection.execute("PRAGMA incremental_vacuum(256)").fetchall()

    def redrive(self, ids: Sequence[int], now: int) -> list[Held]:
        """Hold dead letters for their groups again; returns what is held.

        Raises:
            LogFull: There is no room for those whose events are no longer in the log.
            EventRefused: There are too many topics.
        """
        found: list[Held] = []
        with self._transaction():
            for id_ in ids:
                row = self._connection.execute("DELETE FROM dead WHERE id = ? RETURNING *", (id_,)).fetchone()
                if row is None:
                    continue
                dead = Dead(*row[1:])
                topic = self.topics.find(dead.topic) or self.topics.make(dead.topic)
                self._put_back(dead, topic)
                held = Held(dead.group, dead.offset, now, 0, blocks=False, reason="")
                hold(self._connection, [held])
                found.append(held)
        return found

    def purge(self, ids: Sequence[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with self._reserve():
            return sum(self._connection.execute("DELETE FROM dead WHERE id = ?", (id_,)).rowcount for id_ in ids)

    @contextmanager
    def _reserve(self) -> "Generator[None]":
        """A transaction that may take the room which publishing leaves."""
        with self.room.with_reserve(), self._transaction():
            yield

    @contextmanager
    def _transaction(self, *, many: bool = False) -> "Generator[None]":
        # An append of one statement needs no BEGIN; `_insert` begins by itself where there are several.
        if not many:
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self.topics.keep_made()
        except sqlite3.OperationalError as error:
            raise_if_full(error)
            raise
        finally:  # what is not committed by now has failed
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self.topics.forget_made()

    def _rows_of(self, publications: Iterable[Publication], now: int) -> list[Row]:
        rows: list[Row] = []
        for offset, event in enumerate(publications, self.head + 1):
            topic = self.topics.find(event.topic) or self.topics.make(event.topic)
            expires = event.expires_at or (now + topic.time_to_live if topic.time_to_live else 0)
            rows.append(Row(offset, topic.id, event.priority, now, event.deliver_at, expires, event.head, event.data))
        return rows

    def _insert(self, rows: list[Row]) -> None:
        if not rows:
            return
        left = len(rows)
        if left & (left - 1) or left > _MOST_ROWS:
            begin(self._connection)
        at = 0
        while left:
            count = min(_MOST_ROWS, 1 << left.bit_length() - 1)
            self._connection.execute(_INSERTS[count], tuple(chain.from_iterable(rows[at : at + count])))
            at += count
            left -= count

    def _put_back(self, dead: Dead, topic: Topic) -> None:
        added = self._connection.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, 1, ?, 0, 0, ?, ?)",
            (dead.offset, topic.id, dead.died_at, dead.head, dead.data),
        ).rowcount
        if added:
            self.topics.recount(topic, events=1, size=len(dead.head) + len(dead.data))

    def _save_counts(self) -> None:
        self.topics.save_counts()
        self._put_meta("counted", self.head)
        self._save_head()

    def _save_head(self) -> None:
        self._put_meta("head", self.head)

    def _put_meta(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _load(self) -> None:
        connection = self._connection
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        last = connection.execute(
            "SELECT max(offset), max(at) FROM (SELECT offset, at FROM events ORDER BY offset DESC LIMIT 1)"
        ).fetchone()
        self.head = max(meta.get("head", 0), last[0] or 0)
        self._last_at = last[1] or 0
        self.topics.load(meta.get("counted", 0))
        self.groups += read_groups(connection)
        self._doubles.load(connection)
