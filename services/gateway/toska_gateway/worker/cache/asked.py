"""What a request says that matters to a cache. The lines of a head are sorted once, and remembered by their bytes."""

from typing import Final

from toska_gateway.worker.cache.directives import NOTHING_ASKED, RequestDirectives, read_request_directives
from toska_gateway.worker.http1 import RequestHead, field_name, field_value
from toska_gateway.worker.http1.grammar import remember

_MATTERS: Final = frozenset(
    {
        b"authorization", b"cache-control", b"cookie", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
        b"if-unmodified-since", b"pragma", b"range",
    }
)  # fmt: skip
# Frameworks let these replace the method, the path or the host that the key is made of, so what is answered to a
# request with one of them is nobody else's answer.
_OVERRIDES: Final = frozenset(
    {
        b"x-forwarded-server", b"x-host", b"x-http-host-override", b"x-http-method", b"x-http-method-override",
        b"x-method-override", b"x-original-host", b"x-original-url", b"x-rewrite-url",
    }
)  # fmt: skip
# How the names end of what services that know no better say who asks with: taken for an Authorization, so that nobody
# else gets the answer. (Many write api_key, and upstreams that fold _ into - take any of them so.)
_CREDENTIALS: Final = (b"api-key", b"apikey", b"-token", b"-authorization", b"-jwt", b"-assertion", b"-session")
_NOTHING: Final[dict[bytes, bytes]] = {}
CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since", b"if-range", b"range"})
"""What a request is stripped of that asks for a whole representation on the cache's behalf."""
_ORIGIN_ONLY: Final = (b"if-match", b"if-unmodified-since")
_OVERRIDDEN: Final = b"!"

known_lines: dict[bytes, bytes] = {}
"""What field lines are to a cache, as `sort_line` has found."""


def sort_line(line: bytes) -> bytes:
    """The name of a field that matters, the mark of one that changes what the request means, or nothing."""
    name = field_name(line)
    folded = name.replace(b"_", b"-")
    if folded.endswith(_CREDENTIALS) or name in (b"authorization", b"cookie"):
        # Not remembered: credentials do not outlive their request.
        return b"cookie" if name == b"cookie" else b"authorization"
    kind = name if name in _MATTERS else _OVERRIDDEN if folded in _OVERRIDES else b""
    remember(known_lines, line, kind, 4096)
    return kind


class Asked:
    """One request, as a cache sees it."""

    __slots__ = ("directives", "fields", "is_for_origin")

    def __init__(self, head: RequestHead) -> None:
        fields: dict[bytes, bytes] = _NOTHING
        known = known_lines.get
        for part in head.parts:
            kind = known(part)
            if kind is None:
                kind = sort_line(part)
            if kind:
                if fields is _NOTHING:
                    fields = {}
                value = field_value(part)
                fields[kind] = fields[kind] + b", " + value if kind in fields else value
        self.fields = fields
        self.directives: RequestDirectives = NOTHING_ASKED
        self.is_for_origin = False
        if fields:
            self.directives = read_request_directives(fields.get(b"cache-control"), fields.get(b"pragma"))
            # RFC 9110 §13.2.1: whether If-Match holds is for the origin to say.
            self.is_for_origin = _OVERRIDDEN in fields or not fields.keys().isdisjoint(_ORIGIN_ONLY)

    @property
    def has_authorization(self) -> bool:
        """Whether it says who asks."""
        return b"authorization" in self.fields

    @property
    def has_cookies(self) -> bool:
        """Whether it may say who asks."""
        return b"cookie" in self.fields

    @property
    def is_conditional(self) -> bool:
        """Whether it does not simply ask for the whole."""
        return not self.fields.keys().isdisjoint(CONDITIONS)
