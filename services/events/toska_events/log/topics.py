"""The topics of the log: what there are, and how much of each is kept.

Their counts are stored by and by; what was not stored when the process was killed is counted anew from the events.
"""

import sqlite3
from collections.abc import Iterable

from toska_common.events.errors import EventRefused

from toska_events.log.rows import Row, Topic

MAX_TOPICS = 10_000


class Topics:
    """The table of topics, and the same in memory.

    Threads other than the writer's may look topics up and list them.

    Attributes:
        names: By id.
        version: Changes with what topics there are.
    """

    def __init__(self, connection: sqlite3.Connection, most: int = MAX_TOPICS) -> None:
        self.names: dict[int, str] = {}
        self.version = 0
        self._connection = connection
        self._most = most
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[int, Topic] = {}
        self._made: list[Topic] = []
        """In the transaction that is open."""
        self._counted: set[int] = set()
        """Whose counts have changed and are not stored."""

    def all(self) -> list[Topic]:
        """Every topic, in no order."""
        return list(self._by_name.values())

    def find(self, name: str) -> Topic | None:
        """A topic by its name."""
        return self._by_name.get(name)

    def get(self, id_: int) -> Topic:
        """A topic that is there, by its id."""
        return self._by_id[id_]

    def __contains__(self, id_: int) -> bool:
        return id_ in self._by_id

    def make(self, name: str) -> Topic:
        """Store a topic that is new, in a transaction of the caller's; `forget_made` if that fails.

        Raises:
            EventRefused: There are too many.
        """
        if len(self._by_name) >= self._most:
            raise EventRefused(
                f"the log has {self._most:,} topics, and takes no more: what differs from event to event belongs "
                "into its subject or key, and not into its topic",
                topic=name,
            )
        begin(self._connection)
        row = self._connection.execute(
            "INSERT INTO topics (name, settings, published, events, bytes, last_at, time_to_live) "
            "VALUES (?, '', 0, 0, 0, 0, 0) "
            "RETURNING id",
            (name,),
        ).fetchone()
        topic = Topic(row[0], name)
        self._know(topic)
        self._made.append(topic)
        return topic

    def keep_made(self) -> None:
        """The transaction that made topics is committed."""
        self._made.clear()

    def forget_made(self) -> None:
        """It is not."""
        while self._made:
            self.forget(self._made.pop())

    def forget(self, topic: Topic) -> None:
        """A topic is there no longer."""
        self._by_name.pop(topic.name, None)
        self._by_id.pop(topic.id, None)
        self.names.pop(topic.id, None)
        self.version += 1
        self._counted.discard(topic.id)

    @property
    def are_counted(self) -> bool:
        """Whether all counts are stored."""
        return not self._counted

    def count(self, rows: Iterable[Row]) -> None:
        """Events were published."""
        for row in rows:
            topic = self._by_id[row.topic]
            topic.published += 1
            topic.events += 1
            topic.bytes += len(row.head) + len(row.data)
            topic.last_at = row.at
            self._counted.add(row.topic)

    def recount(self, topic: Topic, *, events: int, size: int) -> None:
        """A topic has so many more events and bytes, without one that was published; fewer, if below 0."""
        topic.events += events
        topic.bytes += size
        self._counted.add(topic.id)

    def save_counts(self) -> None:
        """Store the counts that have changed, in a transaction of the caller's; `counts_saved` once it is committed."""
        counted = [self._by_id[topic] for topic in self._counted]
        if counted:
            self._connection.executemany(
                "UPDATE topics SET published = ?, events = ?, bytes = ?, last_at = ? WHERE id = ?",
                [(topic.published, topic.events, topic.bytes, topic.last_at, topic.id) for topic in counted],
            )

    def counts_saved(self) -> None:
        """The transaction of `save_counts` is committed."""
        self._counted.clear()

    def load(self, counted: int) -> None:
        """Read what is stored, and count the events after the offset up to which that was done."""
        for row in self._connection.execute(
            "SELECT id, name, settings, published, events, bytes, last_at, time_to_live FROM topics"
        ):
            self._know(Topic(*row))
        for topic_id, count, size, last_at in self._connection.execute(
            "SELECT topic, count(*), sum(length(head) + length(data)), max(at) FROM events "
            "WHERE offset > ? GROUP BY +topic",
            (counted,),
        ):
            topic = self._by_id[topic_id]
            topic.published += count
            topic.last_at = max(topic.last_at, last_at)
            self.recount(topic, events=count, size=size)

    def _know(self, topic: Topic) -> None:
        self._by_name[topic.name] = self._by_id[topic.id] = topic
        self.names[topic.id] = topic.name
        self.version += 1


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, unless one is open."""
    if not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")
