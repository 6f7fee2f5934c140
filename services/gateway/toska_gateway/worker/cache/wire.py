"""Stored responses as they are kept outside a worker: bytes with a version and a checksum, read back strictly.

Times travel as seconds since 1970. What does not fit, of whatever making, is nothing: it is asked for anew.
"""

import json
from hashlib import blake2b
from typing import Any, Final

from toska_gateway.worker.cache.entry import Entry

_MARK: Final = b"toska-response-1\n"
_SUM_BYTES: Final = 16
_TEXTS: Final = ("key", "primary", "url", "etag", "last_modified")
_NUMBERS: Final = ("lifetime_s", "stale_while_revalidate_s", "stale_if_error_s")
_FLAGS: Final = ("no_cache", "must_revalidate", "immutable", "for_authorized", "for_cookies")


class Damaged(Exception):
    """These are not the bytes of a response, or not of the one that was asked for."""


def pack(entry: Entry, now: float, wall: float) -> bytes:
    """The bytes of an entry, `now` on the monotonic clock being `wall` since 1970."""
    about: dict[str, Any] = {name: _as_text(getattr(entry, name)) for name in _TEXTS}
    about |= {name: getattr(entry, name) for name in (*_NUMBERS, *_FLAGS, "route", "status")}
    about |= {"vary": [name.decode("latin-1") for name in entry.vary], "head": len(entry.head)}
    about |= {"born_at": wall - (now - entry.born_at), "stored_at": wall}
    rest = json.dumps(about, separators=(",", ":")).encode() + b"\n" + entry.head + entry.body
    return _MARK + _sum(rest) + rest


def unpack(data: bytes, now: float, wall: float) -> tuple[Entry, float]:
    """The entry, and when it was stored, in seconds since 1970.

    Raises:
        Damaged: They are something else, or were changed on their way.
    """
    start = len(_MARK) + _SUM_BYTES
    rest = data[start:]
    if not data.startswith(_MARK) or _sum(rest) != data[len(_MARK) : start]:
        raise Damaged
    try:
        return _read(rest, now, wall)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise Damaged from error


def _read(rest: bytes, now: float, wall: float) -> tuple[Entry, float]:
    end = rest.index(b"\n")
    about: dict[str, Any] = json.loads(rest[:end])
    entry = Entry()
    for name in _TEXTS:
        text = about[name]
        setattr(entry, name, None if text is None else text.encode("latin-1"))
    for name in _NUMBERS:
        setattr(entry, name, float(about[name]))
    for name in _FLAGS:
        setattr(entry, name, about[name] is True)
    entry.vary = tuple(name.encode("latin-1") for name in about["vary"])
    entry.route, entry.status = str(about["route"]), int(about["status"])
    # A clock that is behind the other's would make it younger than new.
    entry.born_at = now - max(0.0, wall - float(about["born_at"]))
    body_at = end + 1 + int(about["head"])
    entry.head, entry.body = rest[end + 1 : body_at], rest[body_at:]
    return entry, float(about["stored_at"])


def _sum(rest: bytes) -> bytes:
    return blake2b(rest, digest_size=_SUM_BYTES).digest()


def _as_text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
