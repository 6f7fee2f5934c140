"""A stored response: its bytes, and what decides over its use. Times are monotonic seconds that the caller gives."""

from typing import TYPE_CHECKING, Final

from toska_gateway.worker.cache.dates import read_date

if TYPE_CHECKING:
    from toska_gateway.worker.cache.hits import Hit

ENTRY_OVERHEAD: Final = 1200
"""Bytes that an entry takes besides its head, body and keys: its object, its places in tables, and Python's own."""

GROUP_OVERHEAD: Final = 400
"""Bytes that a group takes in tables, if nothing else is in it."""


class Entry:
    """One stored response.

    Attributes:
        key: What it is found under, the fields that Vary names included.
        primary: The same without those.
        url: Whose representation it is, whatever route and user it was stored for.
        head: Status line and field lines in wire form, with Content-Length, without Age.
        born_at: When it was made, so that its age is the time since.
        hit: Its last answer on the short way.
        lifetime_s: It is fresh up to this age.
        stale_while_revalidate_s: So long past that it may be used while it is validated.
        stale_if_error_s: So long past that it may be used if it cannot be validated.
        no_cache: It is validated before each use.
        must_revalidate: It is never used stale.
        immutable: It will not change while it is fresh (RFC 8246).
        failed_until: The upstream could not be asked about it lately; so long it is not waited for again.
        for_authorized: Requests with Authorization may have it.
        for_cookies: Requests with cookies may have it.
        groups: What it is in by its Cache-Groups, if events may end it; `None` if they may not.
        shared_at: When another gateway shared it.
    """

    __slots__ = (
        "body", "born_at", "etag", "failed_until", "for_authorized", "for_cookies", "groups", "head", "hit",
        "immutable", "key", "last_modified", "lifetime_s", "must_revalidate", "no_cache", "primary", "route",
        "shared_at", "stale_if_error_s", "stale_while_revalidate_s", "status", "url", "vary",
    )  # fmt: skip

    key: bytes
    primary: bytes
    url: bytes
    route: str
    vary: tuple[bytes, ...]
    status: int
    head: bytes
    body: bytes
    etag: bytes | None
    last_modified: bytes | None
    born_at: float
    lifetime_s: float
    stale_while_revalidate_s: float
    stale_if_error_s: float
    no_cache: bool
    must_revalidate: bool
    immutable: bool
    for_authorized: bool
    for_cookies: bool
    groups: tuple[bytes, ...] | None
    hit: "Hit | None"

    def __init__(self) -> None:
        self.hit = None
        self.groups = None
        self.shared_at = 0.0
        self.failed_until = 0.0

    @property
    def size(self) -> int:
        """Bytes that it takes in memory."""
        size = 2 * len(self.head) + len(self.body) + len(self.key) + len(self.primary) + len(self.url) + ENTRY_OVERHEAD
        return size + sum(len(group) + GROUP_OVERHEAD for group in self.groups) if self.groups else size

    @property
    def can_be_validated(self) -> bool:
        """Whether the origin can be asked if it has changed."""
        return self.etag is not None or self.last_modified is not None

    def parts(self) -> list[bytes]:
        """Status line and field lines, each with its CRLF."""
        return [line + b"\r\n" for line in self.head.split(b"\r\n")[:-1]]

    def ttl(self, now: float) -> float:
        """Seconds that it will be fresh; negative: so long it has been stale."""
        return self.lifetime_s - (now - self.born_at)

    def is_useless(self, now: float) -> bool:
        """Whether it can neither be used nor validated any more."""
        staleness = -self.ttl(now)
        if staleness < 0 or self.can_be_validated:
            return False
        return staleness >= max(self.stale_while_revalidate_s, self.stale_if_error_s)

    def validators(self) -> list[bytes]:
        """Field lines with which to ask the origin whether it is still what it was."""
        lines: list[bytes] = []
        if self.etag is not None:
            lines.append(b"if-none-match: " + self.etag + b"\r\n")
        if self.last_modified is not None and read_date(self.last_modified) is not None:
            lines.append(b"if-modified-since: " + self.last_modified + b"\r\n")
        return lines
