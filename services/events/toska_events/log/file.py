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
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from toska_common.events.embedded.records import Publication, identity_of
from toska_common.events.errors import EventRefused, LogFull

from toska_events.log.group_rows import delete_group, hold, insert_group, read_groups, store_changes
from toska_events.log.rows import Changes, Dead, GroupRow, Held, Row, Topic
from toska_events.log.schema import connect

if TYPE_CHECKING:
    from collections.abc import Generator

REMEMBERED = 50_000
"""How many events back doubles are looked for; more than any publisher sends before it is confirmed."""
MAX_TOPICS = 10_000
_RESERVE_PAGES = 512
"""Room that publishing leaves, so that a full log can still be told what was settled, and so become less full."""
_NEARLY = 0.85
_MOST_ROWS = 128

_INSERTS = {
    count: f"INSERT INTO events VALUES {','.join(['(?,?,?,?,?,?,?,?)'] * count)}"  # noqa: S608 - marks only
    for count in (1, 2, 4, 8, 16, 32, 64, _MOST_ROWS)
}


class LogFile:
    """The file, open for writing.

    Attributes:
        head: The last offset that was given out.
        topics: Every topic by name, with what is in it; `topic_names` is their names by id.
        topics_version: Changes with what topics there are.
        groups: What was stored of groups when it was opened.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, max_bytes: int, max_topics: int = MAX_TOPICS
    ) -> None:
        self.path = path
        self._max_topics = max_topics
        self.groups: list[GroupRow] = []
        self.topics: dict[str, Topic] = {}
        self.topic_names: dict[int, str] = {}
        self.topics_version = 0
        self._by_id: dict[int, Topic] = {}
        self._connection = connection
        self._page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
        self._max_pages = max(max_bytes // self._page_bytes, _RESERVE_PAGES * 2)
        self._recent: dict[bytes, None] = {}
        self._counted: set[int] = set()
        """Topics whose counts have changed and are not stored; they are made anew from what is there after a crash."""
        self._last_at = 0
        self.head = 0
        self._limit_pages(self._max_pages - _RESERVE_PAGES)
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
        try:
            return cls(connection, path, max_bytes, max_topics)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Store the counts, and close the file; without room for them they are made anew when it is opened."""
        try:
            with suppress(LogFull, sqlite3.Error):
                self.save(Changes())
        finally:
            self._connection.close()

    @property
    def used_bytes(self) -> int:
        """Of the file; what was freed within it is not counted."""
        count = self._connection.execute("PRAGMA page_count").fetchone()[0]
        free = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        return (count - free) * self._page_bytes

    @property
    def max_bytes(self) -> int:
        """What the file may grow to."""
        return self._max_pages * self._page_bytes

    @property
    def is_nearly_full(self) -> bool:
        """Whether publishing is about to be refused."""
        return self.used_bytes > _NEARLY * (self._max_pages - _RESERVE_PAGES) * self._page_bytes

    def append(self, publications: Iterable[Publication], now: int) -> list[Row]:
        """Store events at `now`; returns those that are new, by offset, once they are as safe as the policy says.

        Raises:
            LogFull: There is no room; nothing was stored.
            EventRefused: There are too many topics; nothing was stored.
        """
        now = self._last_at = max(now, self._last_at)
        rows: list[Row] = []
        remembered: list[bytes] = []
        made: list[Topic] = []
        try:
            with self._transaction(many=True):
                for event in publications:
                    identity = identity_of(event.head)
                    if identity in self._recent:
                        continue
                    self._recent[identity] = None
                    remembered.append(identity)
                    topic = self.topics.get(event.topic)
                    if topic is None:
                        topic = self._make_topic(event.topic)
                        made.append(topic)
                    expires = event.expires_at or (now + topic.time_to_live if topic.time_to_live else 0)
                    rows.append(
                        Row(
                            self.head + len(rows) + 1,
                            topic.id,
                            event.priority,
                            now,
                            event.deliver_at,
                            expires,
                            event.head,
                            event.data,
                        )
                    )
                self._insert(rows)
        except BaseException as error:
            for identity in remembered:
                del self._recent[identity]
            for topic in made:
                self._forget(topic)
            _raise_if_full(error)
            raise
        self.head += len(rows)
        self._count(rows)
        self._trim_recent()
        return rows

    def save(self, changes: Changes) -> None:
        """Store what has changed in groups, and the counts of topics, all at once.

        Raises:
            LogFull: The disk is.
        """
        if not changes and not self._counted:
            return
        self._limit_pages(self._max_pages)
        try:
            with self._transaction():
                store_changes(self._connection, changes)
                self._save_counts()
        except sqlite3.Error as error:
            _raise_if_full(error)
            raise
        finally:
            self._limit_pages(self._max_pages - _RESERVE_PAGES)
        self._counted.clear()

    def make_group(self, group: GroupRow) -> None:
        """Store a group that is new; it is given its id."""
        insert_group(self._connection, group)

    def drop_group(self, group_id: int) -> None:
        """Forget a group, and its dead letters."""
        with self._transaction():
            delete_group(self._connection, group_id)

    def clear_held(self, group_id: int) -> None:
        """Have nothing held for a group."""
        self._connection.execute("DELETE FROM held WHERE group_id = ?", (group_id,))

    def put_topic(self, name: str, settings: str, time_to_live: int) -> Topic:
        """Create a topic, or set it anew."""
        with self._transaction():
            topic = self.topics.get(name) or self._make_topic(name)
            self._connection.execute(
                "UPDATE topics SET settings = ?, time_to_live = ? WHERE id = ?", (settings, time_to_live, topic.id)
            )
        topic.settings, topic.time_to_live = settings, time_to_live
        return topic

    def drop_topic(self, topic: Topic) -> list[int]:
        """Forget a topic and its events; returns the offsets of those that were held."""
        with self._transaction():
            held = self._connection.execute(
                "SELECT DISTINCT offset FROM held JOIN events USING (offset) WHERE topic = ?", (topic.id,)
            ).fetchall()
            self._connection.execute(
                "DELETE FROM held WHERE offset IN (SELECT offset FROM events WHERE topic = ?)", (topic.id,)
            )
            self._connection.execute("DELETE FROM events WHERE topic = ?", (topic.id,))
            self._connection.execute("DELETE FROM topics WHERE id = ?", (topic.id,))
            self._save_head()
        self._forget(topic)
        return [offset for (offset,) in held]

    def remove(
        self, topic: int, upto: int, before: int, kept: Sequence[int], *, after: int, limit: int, enough: int | None
    ) -> tuple[int, int]:
        """Forget settled events of a topic: those in (`after`, `upto`] that were stored before `before`, oldest first.

        Held events and those in `kept` stay, and so does the rest once `enough` bytes are gone. Returns how many bytes
        went, and the offset up to which was looked, 0 once there is nothing more to look at.
        """
        if topic not in self._by_id:
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
        topic = self._by_id[topic_id]
        self._counted.add(topic_id)
        topic.events -= len(offsets)
        topic.bytes -= size
        try:
            with self._transaction():
                self._connection.execute(
                    "DELETE FROM events WHERE offset IN (SELECT value FROM json_each(?))", (json.dumps(offsets),)
                )
                self._save_counts()
        except sqlite3.Error:
            topic.events += len(offsets)
            topic.bytes += size
            raise
        self._counted.clear()

    def shrink(self) -> None:
        """Give freed pages back to the file system, a few at a time."""
        self._connection.execute("PRAGMA incremental_vacuum(256)").fetchall()

    def redrive(self, ids: Sequence[int], now: int) -> list[Held]:
        """Hold dead letters for their groups again; returns what is held."""
        found: list[Held] = []
        with self._transaction():
            for id_ in ids:
                row = self._connection.execute("DELETE FROM dead WHERE id = ? RETURNING *", (id_,)).fetchone()
                if row is None:
                    continue
                dead = Dead(*row[1:])
                topic = self.topics.get(dead.topic) or self._make_topic(dead.topic)
                self._put_back(dead, topic)
                held = Held(dead.group, dead.offset, now, 0, blocks=False, reason="")
                hold(self._connection, [held])
                found.append(held)
        return found

    def purge(self, ids: Sequence[int]) -> int:
        """Forget dead letters; returns how many there were."""
        with self._transaction():
            return sum(self._connection.execute("DELETE FROM dead WHERE id = ?", (id_,)).rowcount for id_ in ids)

    @contextmanager
    def _transaction(self, *, many: bool = False) -> "Generator[None]":
        # An append of one statement needs no BEGIN; `_insert` begins by itself where there are several.
        if not many:
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, rows: list[Row]) -> None:
        if not rows:
            return
        left = len(rows)
        if left & (left - 1) or left > _MOST_ROWS:
            self._begin()
        at = 0
        while left:
            count = min(_MOST_ROWS, 1 << left.bit_length() - 1)
            self._connection.execute(_INSERTS[count], tuple(chain.from_iterable(rows[at : at + count])))
            at += count
            left -= count

    def _begin(self) -> None:
        if not self._connection.in_transaction:
            self._connection.execute("BEGIN IMMEDIATE")

    def _make_topic(self, name: str) -> Topic:
        if len(self.topics) >= self._max_topics:
            raise EventRefused(
                f"the log has {self._max_topics:,} topics, and takes no more: what differs from event to event belongs "
                "into its subject or key, and not into its topic",
                topic=name,
            )
        self._begin()
        row = self._connection.execute(
            "INSERT INTO topics (name, settings, published, events, bytes, last_at, time_to_live) "
            "VALUES (?, '', 0, 0, 0, 0, 0) "
            "RETURNING id",
            (name,),
        ).fetchone()
        topic = Topic(row[0], name)
        self._know(topic)
        return topic

    def _know(self, topic: Topic) -> None:
        self.topics[topic.name] = self._by_id[topic.id] = topic
        self.topic_names[topic.id] = topic.name
        self.topics_version += 1

    def _forget(self, topic: Topic) -> None:
        self.topics.pop(topic.name, None)
        self._by_id.pop(topic.id, None)
        self.topic_names.pop(topic.id, None)
        self.topics_version += 1
        self._counted.discard(topic.id)

    def _count(self, rows: list[Row]) -> None:
        for row in rows:
            topic = self._by_id[row.topic]
            topic.published += 1
            topic.events += 1
            topic.bytes += len(row.head) + len(row.data)
            topic.last_at = row.at
            self._counted.add(row.topic)

    def _put_back(self, dead: Dead, topic: Topic) -> None:
        added = self._connection.execute(
            "INSERT OR IGNORE INTO events VALUES (?, ?, 1, ?, 0, 0, ?, ?)",
            (dead.offset, topic.id, dead.died_at, dead.head, dead.data),
        ).rowcount
        if added:
            topic.events += 1
            topic.bytes += len(dead.head) + len(dead.data)
            self._counted.add(topic.id)

    def _save_counts(self) -> None:
        counted = [self._by_id[topic] for topic in self._counted]
        if counted:
            self._connection.executemany(
                "UPDATE topics SET published = ?, events = ?, bytes = ?, last_at = ? WHERE id = ?",
                [(topic.published, topic.events, topic.bytes, topic.last_at, topic.id) for topic in counted],
            )
        self._put_meta("counted", self.head)
        self._save_head()

    def _save_head(self) -> None:
        self._put_meta("head", self.head)

    def _put_meta(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _limit_pages(self, pages: int) -> None:
        self._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    def _load(self) -> None:
        connection = self._connection
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        last = connection.execute(
            "SELECT max(offset), max(at) FROM (SELECT offset, at FROM events ORDER BY offset DESC LIMIT 1)"
        ).fetchone()
        self.head = max(meta.get("head", 0), last[0] or 0)
        self._last_at = last[1] or 0
        for row in connection.execute(
            "SELECT id, name, settings, published, events, bytes, last_at, time_to_live FROM topics"
        ):
            self._know(Topic(*row))
        self._count_since(meta.get("counted", 0))
        self.groups += read_groups(connection)
        newest = connection.execute("SELECT head FROM events ORDER BY offset DESC LIMIT ?", (REMEMBERED,)).fetchall()
        self._recent = {identity_of(head): None for (head,) in reversed(newest)}

    def _count_since(self, offset: int) -> None:
        for topic_id, count, size, last_at in self._connection.execute(
            "SELECT topic, count(*), sum(length(head) + length(data)), max(at) FROM events "
            "WHERE offset > ? GROUP BY +topic",
            (offset,),
        ):
            topic = self._by_id[topic_id]
            topic.published += count
            topic.events += count
            topic.bytes += size
            topic.last_at = max(topic.last_at, last_at)
            self._counted.add(topic_id)

    def _trim_recent(self) -> None:
        excess = len(self._recent) - REMEMBERED
        if excess > 1000:  # by and by, and not one for each event
            oldest = iter(self._recent)
            for identity in [next(oldest) for _ in range(excess)]:
                del self._recent[identity]


def _raise_if_full(error: BaseException) -> None:
    full = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE}
    if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in full:
        raise LogFull(
            "the event log has no room left, on its disk or within TOSKA_EVENTS_MAX_BYTES; nothing was published"
        ) from error
