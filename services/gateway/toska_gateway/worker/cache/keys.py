"""What a response is stored under: where it was asked for, by which route, and for whom if the route says so."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from toska_gateway.worker.cache.vary import normal_value
from toska_gateway.worker.http1 import RequestHead, encode_path, field_value
from toska_gateway.worker.http1.targets import is_host, read_path_and_query

if TYPE_CHECKING:
    from toska_gateway.worker.exchange import Exchange

# What a trusted proxy says of the client's request and we pass on: an upstream may write it into its answers.
_TOLD: Final = (b"x-forwarded-port", b"x-forwarded-prefix")
_PARTS: Final = b"\0"
"""Between the parts of a key; none of them can hold it."""


class NoKey(Exception):
    """The request does not say who asks, and the route's key needs that."""


class KeyMaker:
    """Makes the keys of one route.

    Args:
        route: Its name.
        settings: Its `cache` in plain data. A route whose settings change begins anew.
    """

    __slots__ = ("_claims", "_cookies", "_headers", "_salt", "divides")

    def __init__(self, route: str, settings: dict[str, Any]) -> None:
        key = settings["key"]
        self._headers = tuple(name.encode() for name in key["headers"])
        self._cookies = tuple(name.encode() for name in key["cookies"])
        self._claims: tuple[str, ...] = tuple(key["claims"])
        self.divides = bool(self._headers or self._cookies or self._claims)
        decisive = [route, *(repr(settings[name]) for name in ("key", "vary_ignore", "ignore_cookies"))]
        if settings["forget_on_events"]:
            decisive.append("forget_on_events")  # what was kept before has not been listened for
        self._salt = blake2b("\n".join(decisive).encode(), digest_size=8).hexdigest().encode()

    def prefix(self, cluster: str) -> bytes:
        """What the keys of requests begin with that go to one cluster, if nothing but their URL is in their keys."""
        return b"%b\0%b" % (self._salt, cluster.encode())

    def url(self, exchange: "Exchange") -> bytes:
        """Which URL is asked for, as the client wrote it."""
        head, forwarding = exchange.head, exchange.down.forwarding
        scheme, host = forwarding.scheme, head.host
        if forwarding.trusted:
            scheme = head.special.get(b"x-forwarded-proto", (scheme,))[-1].lower()
            host = head.special.get(b"x-forwarded-host", (host,))[-1]
        return b"%b\0%b\0%b\0%b" % (scheme, host.lower(), head.path, head.query)

    def primary(self, exchange: "Exchange", url: bytes) -> bytes:
        """The key, but for the fields that Vary names.

        Raises:
            NoKey: A part of it is missing.
        """
        # A split's clusters may answer differently, and so may those that another policy chose for this request.
        primary = b"%b\0%b" % (self.prefix(exchange.cluster.name), url)
        passage = exchange.passage
        if passage is not None and (passage.path or passage.variant):
            primary += b"\0%b\0%b" % (passage.path, passage.variant)
        if exchange.down.forwarding.trusted:
            primary += self._told(exchange.head)
        return primary + self._user(exchange) if self.divides else primary

    def _told(self, head: RequestHead) -> bytes:
        told = [head.host, *(b",".join(head.special.get(name, ())) for name in _TOLD)]
        return _PARTS + _PARTS.join(told)

    def _user(self, exchange: "Exchange") -> bytes:
        head = exchange.head
        values = [normal_value(name, head.field(name)) for name in self._headers]
        if self._cookies:
            values += _cookies(head, self._cookies)
        if self._claims:
            claims = exchange.claims
            for name in self._claims:
                if claims is None or claims.get(name) is None:
                    raise NoKey(name)
                values.append(repr(claims[name]).encode())
        # Lengths, since values can hold any byte but NUL, and a digest, since they can be credentials.
        joined = b"".join(b"%d:%b" % (len(value), value) for value in values)
        return _PARTS + blake2b(joined, digest_size=16).digest()


def _cookies(head: RequestHead, names: Iterable[bytes]) -> list[bytes]:
    given: dict[bytes, list[bytes]] = {}
    for part in head.parts[1:]:
        if part[:7].lower() == b"cookie:":
            for pair in field_value(part).split(b";"):
                name, _, value = pair.strip(b" \t").partition(b"=")
                given.setdefault(name, []).append(value)
    # A cookie that comes twice counts with both values: which of them the upstream takes is not for us to know.
    return [b"\x01" if name not in given else b"\x02".join(given[name]) for name in names]


def read_url(url: str) -> bytes:
    """The key of an absolute URL, as `KeyMaker.url` makes it.

    Raises:
        ValueError: It is none.
    """
    scheme, colon, rest = url.partition("://")
    if scheme.lower() not in ("http", "https") or not colon:
        raise ValueError("write the whole URL: http:// or https://, host, path and query")
    try:
        data = rest.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("a URL is made of ASCII characters; others are percent-encoded") from None
    end = min((at for at in (data.find(b"/"), data.find(b"?")) if at >= 0), default=len(data))
    host, target = data[:end], data[end:].partition(b"#")[0]
    if not is_host(host):
        raise ValueError("the URL's host is malformed")
    path, query, *_ = read_path_and_query(target if target[:1] == b"/" else b"/" + target)
    return b"%b\0%b\0%b\0%b" % (scheme.lower().encode(), host.lower(), path, query)


def write_url(key: bytes) -> str:
    """The URL of a key."""
    scheme, host, path, query = key.split(_PARTS)
    return (scheme + b"://" + host + encode_path(path) + query).decode("latin-1")


def same_origin(url: bytes, location: bytes) -> bytes | None:
    """The key of the URL that `location` points to, seen from `url`; `None` if it is of another origin."""
    scheme, host, path, _ = url.split(_PARTS)
    origin = scheme + b"://" + host
    if location.startswith(b"//"):
        location = scheme + b":" + location
    elif location.startswith(b"/"):
        location = origin + location
    elif b"://" not in location.partition(b"?")[0]:
        location = origin + path[: path.rfind(b"/") + 1] + location
    try:
        found = read_url(location.decode("latin-1"))
    except Exception:  # noqa: BLE001 - an upstream wrote it, and it is no URL
        return None
    return found if found.split(_PARTS)[:2] == [scheme, host] else None
