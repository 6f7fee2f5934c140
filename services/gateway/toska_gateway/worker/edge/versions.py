"""Versions of an API: which one a request means, who serves it, and what callers of an old one are told.

Deprecation is RFC 9745's, Sunset RFC 8594's; links have the relations that these and RFC 5829 register.
"""

import re
from collections.abc import Callable
from datetime import datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from toska_common.clock import now_utc

from toska_gateway.worker.http1 import CRLF, ResponseHead, field_name
from toska_gateway.worker.http1.fields import drop_spellings

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.passage import Passage
    from toska_gateway.worker.plane import Plane

_NUMBER: Final = rb"[0-9][0-9A-Za-z.-]{0,31}"
_SEGMENT: Final = re.compile(rb"/[vV](" + _NUMBER + rb")(?=/|\Z)")
_VENDOR: Final = re.compile(rb"[^\s;,/]+/vnd\.[^\s;,/]*?\.[vV](" + _NUMBER + rb")", re.IGNORECASE)
_ENDINGS: Final = frozenset({b"deprecation", b"sunset"})
_TOLD: Final = 40
"""Of a version that nobody knows so many bytes are told."""
_RELATIONS: Final = (
    ("deprecation_link", "deprecation"),
    ("sunset_link", "sunset"),
    ("successor", "successor-version"),
)


class _Version:
    """One version, compiled."""

    __slots__ = ("cluster", "gone_at", "lines", "name")

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name.encode()
        self.cluster: str | None = settings["cluster"]
        sunset: float | None = settings["sunset"]
        self.gone_at = sunset if settings["after_sunset"] == "gone" else None
        lines: list[str] = []
        if settings["deprecated"] is not None:
            lines.append(f"deprecation: @{int(settings['deprecated'])}")
        if sunset is not None:
            lines.append(f"sunset: {formatdate(sunset, usegmt=True)}")
        lines += [f'link: <{settings[key]}>; rel="{relation}"' for key, relation in _RELATIONS if settings[key]]
        self.lines = "".join(line + "\r\n" for line in lines).encode("ascii")


class Versions:
    """The versions of one route's API."""

    __slots__ = (
        "_by", "_default", "_forward_as", "_known", "_names", "_now", "_parameter", "_plane", "_query", "_strip",
        "_vary", "header",
    )  # fmt: skip

    def __init__(
        self, settings: dict[str, Any], route: str, plane: "Plane", now: Callable[[], datetime] = now_utc
    ) -> None:
        self._plane = plane
        self._now = now
        self._known = {name.encode(): _Version(name, one) for name, one in settings["known"].items()}
        self._names = ", ".join(settings["known"])
        default = settings["default"]
        self._default = None if default is None else self._known[default.encode()]
        self.header: bytes = settings["header"].encode()
        self._query: bytes = settings["query"].encode() + b"="
        self._parameter = re.compile(
            rb';\s*%b="?(%b)' % (re.escape(settings["parameter"].encode()), _NUMBER), re.IGNORECASE
        )
        ways = {
            "path": self._in_path,
            "header": self._in_header,
            "media_type": self._in_accept,
            "query": self._in_query,
        }
        self._by = tuple((way == "media_type", ways[way]) for way in settings["by"])
        self._strip: bool = settings["strip_path"]
        forward = settings["forward_as"]
        self._forward_as: bytes = b"" if forward is None else forward.encode()
        varying = [
            name for way, name in (("header", settings["header"]), ("media_type", "accept")) if way in settings["by"]
        ]
        self._vary = f"vary: {', '.join(varying)}\r\n".encode() if varying else b""

    def enter(self, exchange: "Exchange", passage: "Passage") -> bool:
        """Lead the request to its version, or say which there are."""
        exchange.added += self._vary
        version = self._default
        for by_type, way in self._by:
            meant = way(exchange, passage)
            if meant is not None:
                version = self._known.get(meant)
                if version is None:
                    self._refuse(exchange, meant, 406 if by_type else 400)
                    return False
                break
        if version is None:
            exchange.fail(
                400, "unknown-api-version", f"say which version of this API is meant; known are {self._names}"
            )
            return False
        passage.variant = version.name
        passage.led = version.cluster is not None
        return self._lead(exchange, version)

    def shape(self, exchange: "Exchange", head: ResponseHead) -> None:
        """Of when it ends there is one word, the operator's."""
        if b"deprecation: " in exchange.added or b"sunset: " in exchange.added:
            parts = head.parts
            parts[1:] = [part for part in parts[1:] if field_name(part) not in _ENDINGS]

    def _lead(self, exchange: "Exchange", version: _Version) -> bool:
        exchange.added += version.lines
        if version.gone_at is not None and self._now().timestamp() >= version.gone_at:
            name = version.name.decode()
            exchange.fail(410, "api-version-gone", f"version {name} of this API is gone; known are {self._names}")
            return False
        if version.cluster is not None:
            cluster = self._plane.cluster(version.cluster)
            if cluster is None:
                exchange.fail(503, "upstream-unavailable", f"cluster {version.cluster} is not known yet")
                return False
            exchange.cluster = cluster
        if self._forward_as:
            parts = exchange.head.parts
            drop_spellings(parts, frozenset((self._forward_as.lower().replace(b"_", b"-"),)))
            parts.append(self._forward_as + b": " + version.name + CRLF)
        return True

    def _refuse(self, exchange: "Exchange", meant: bytes, status: int) -> None:
        told = meant[:_TOLD].decode("latin-1")
        exchange.fail(status, "unknown-api-version", f"there is no version {told} of this API; known are {self._names}")

    # -- the ways to name a version: each returns what the request names, if it names one so

    def _in_path(self, exchange: "Exchange", passage: "Passage") -> bytes | None:
        path, prefix = exchange.head.path, exchange.route.prefix.rstrip(b"/")
        match = _SEGMENT.match(path, len(prefix))
        if match is None:
            return None
        if self._strip:
            passage.path = prefix + path[match.end() :] or b"/"
        return match[1]

    def _in_header(self, exchange: "Exchange", passage: "Passage") -> bytes | None:
        given = exchange.head.field(self.header)
        if given is None:
            return None
        return given[1:] if given[:1] in (b"v", b"V") else given

    def _in_accept(self, exchange: "Exchange", passage: "Passage") -> bytes | None:
        accept = exchange.head.field(b"accept")
        if accept is None:
            return None
        for member in accept.split(b","):
            found = self._parameter.search(member)
            if found is not None:
                return found[1]
            found = _VENDOR.match(member.strip())
            if found is not None:
                return self._named(found[1])
        return None

    def _named(self, meant: bytes) -> bytes:
        # vnd.shop.v2.orders+json is version 2 of something: what follows a dot may be the thing's name.
        known = meant
        while known:
            if known in self._known:
                return known
            known = known.rpartition(b".")[0]
        return meant

    def _in_query(self, exchange: "Exchange", passage: "Passage") -> bytes | None:
        for pair in exchange.head.query[1:].split(b"&"):
            if pair.startswith(self._query):
                return pair[len(self._query) :]
        return None
