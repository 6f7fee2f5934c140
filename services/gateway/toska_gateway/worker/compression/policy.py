"""Which responses are compressed, and what that changes in their heads (RFC 9110 §7.7, §8.4, §8.8)."""

from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.compression.coders import Coder, coder_factory
from toska_gateway.worker.compression.negotiation import Negotiator
from toska_gateway.worker.http1 import ResponseHead, field_name, field_value, forget_bytes

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_CONSULTED: Final = frozenset({b"content-type", b"content-encoding", b"cache-control", b"vary", b"etag"})
_NOT_MODIFIED: Final = 304
_UNCHANGED: Final = frozenset({204, 205, 206})
"""Without a body, or with a part of one that only fits what the upstream has."""
_VARY: Final = b"vary: accept-encoding\r\n"


class Compress:
    """A route's compression: a gate that notes what the client takes, and a shaper."""

    __slots__ = ("_exact", "_families", "_makers", "_min_bytes", "_negotiator", "_suffixes")

    def __init__(self, settings: dict[str, Any], route: str, plane: "Plane") -> None:
        algorithms, levels = settings["algorithms"], settings["levels"]
        self._negotiator = Negotiator(algorithms)
        self._makers = {
            algorithm: (coder_factory(algorithm, levels[algorithm]), b"content-encoding: %b\r\n" % algorithm.encode())
            for algorithm in algorithms
        }
        self._min_bytes: int = settings["min_bytes"]
        types = [media_type.encode() for media_type in settings["content_types"]]
        self._exact = frozenset(media_type for media_type in types if b"*" not in media_type)
        self._families = frozenset(media_type[:-1] for media_type in types if media_type.endswith(b"/*"))
        self._suffixes = tuple(tuple(one.split(b"*")) for one in types if b"/*+" in one)

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Note Accept-Encoding as it came: header rules and filters may have the upstream see another one."""
        passage.accept_encoding = exchange.head.field(b"accept-encoding")
        return True

    def shape(self, exchange: "Exchange", head: ResponseHead) -> "Compressing | None":
        """Change the head of a response that is compressed, and return what compresses its body."""
        if head.status in _UNCHANGED:
            return None
        fields = _read(head)
        if head.status == _NOT_MODIFIED:
            self._match_stored(exchange, head, fields)
            return None
        if not self._may_change(fields, exchange):
            return None
        coding, required = self._negotiator.choose(_accepted(exchange))
        length = _length(head)
        if 0 <= length < self._min_bytes and not (required and length):
            return None
        _vary(head, fields)
        if coding is None:
            return None
        make, line = self._makers[coding]
        forget_bytes(head.parts)
        head.parts.append(line)
        return Compressing(make(), length)

    def _may_change(self, fields: dict[bytes, bytes], exchange: "Exchange") -> bool:
        media_type = fields.get(b"content-type")
        if media_type is None or b"content-encoding" in fields or not self._takes(media_type):
            return False
        if _forbids_transforming(fields.get(b"cache-control")):
            return False
        return not _forbids_transforming(exchange.head.field(b"cache-control"))  # RFC 9111 §5.2.1.6

    def _takes(self, content_type: bytes) -> bool:
        media_type = content_type.partition(b";")[0].strip(b" \t").lower()
        if media_type in self._exact:
            return True
        if media_type[: media_type.find(b"/") + 1] in self._families:
            return media_type != b"text/event-stream"  # only by its own name: it is no document
        return any(media_type.startswith(before) and media_type.endswith(after) for before, after in self._suffixes)

    def _match_stored(self, exchange: "Exchange", head: ResponseHead, fields: dict[bytes, bytes]) -> None:
        """Speak of what the client has by the tag that it was given: a strong one would not freshen a weak one.

        RFC 9111 §4.3.4; and RFC 9110 §15.4.5 has Vary repeated.
        """
        etag = fields.get(b"etag")
        if etag is None or etag.startswith(b"W/"):
            return
        asked = exchange.head.field(b"if-none-match")
        if asked is not None and b"W/" + etag in asked:
            forget_bytes(head.parts)
            _vary(head, fields)


class Compressing:
    """One body on its way; `length` is how much of it comes, or -1 if that is not known."""

    __slots__ = ("_coder", "_left")

    resizes = True

    def __init__(self, coder: Coder, length: int) -> None:
        self._coder = coder
        self._left = length

    def feed(self, payload: bytes) -> bytes:
        """Compress the next bytes, and hold nothing of them back while more is to come."""
        coder = self._coder
        self._left -= len(payload)
        coded = coder.feed(payload)
        return coded + coder.flush() if self._left else coded

    def finish(self) -> bytes:
        return self._coder.finish()

    def abort(self) -> None:
        """Nothing is owed to anybody: without its end the coding cannot be taken for whole."""


def _accepted(exchange: "Exchange") -> bytes | None:
    return None if exchange.passage is None else exchange.passage.accept_encoding


def _read(head: ResponseHead) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for part in head.parts[1:]:
        name = field_name(part)
        if name in _CONSULTED:
            known = fields.get(name)
            fields[name] = field_value(part) if known is None else known + b", " + field_value(part)
    return fields


def _length(head: ResponseHead) -> int:
    """Bytes of the body that a GET would have brought, or -1."""
    lengths = head.special.get(b"content-length")
    return -1 if lengths is None else int(lengths[0])


def _forbids_transforming(cache_control: bytes | None) -> bool:
    if cache_control is None or b"no-transform" not in cache_control.lower():
        return False
    return any(one.strip(b" \t").lower() == b"no-transform" for one in cache_control.split(b","))


def _vary(head: ResponseHead, fields: dict[bytes, bytes]) -> None:
    known = fields.get(b"vary")
    if known is not None:
        names = {name.strip(b" \t").lower() for name in known.split(b",")}
        if b"*" in names or b"accept-encoding" in names:
            return
    head.parts.append(_VARY)
