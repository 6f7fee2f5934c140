"""One event in the hands of one group."""

from toska_common.events.embedded.records import key_of

from toska_events.log.rows import Row


class Entry:
    """An event that a group has yet to settle; `attempts` counts how often it was handed out.

    Events of ephemeral topics have offsets below 0, and are stored nowhere.
    """

    __slots__ = ("attempts", "blocks", "data", "expires", "head", "key", "offset", "priority", "reason", "topic")

    def __init__(
        self, offset: int, topic: int, priority: int, expires: int, head: bytes, data: bytes, key: str | None
    ) -> None:
        self.offset = offset
        self.topic = topic
        self.priority = priority
        self.expires = expires
        self.head = head
        self.data = data
        self.key = key
        self.attempts = 0
        self.blocks = False
        """Whether its key has been waiting for it meanwhile."""
        self.reason = ""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.head) + len(self.data)


def entry_of(row: Row, *, ordered: bool) -> Entry:
    """An event of the log, as a group is given it; only groups that keep order look at keys."""
    return Entry(
        row.offset, row.topic, row.priority, row.expires, row.head, row.data, key_of(row.head) if ordered else None
    )
