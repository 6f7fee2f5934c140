"""What a request's endpoint follows from, where a balancer goes by a key: a header, a cookie, the path, the client.

A request without the header or cookie has nothing that it must stay with, so it goes anywhere; all of them on one
endpoint would be a hot spot.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs

from toska_common.balancing.base import hash_of

from toska_gateway.worker.http1 import RequestHead, field_name, field_value

if TYPE_CHECKING:
    from toska_gateway.worker.forwarding import Forwarding


class Asker(Protocol):
    """Whoever a request comes from."""

    forwarding: "Forwarding"


KeyOf = Callable[[RequestHead, Asker], int]


def compile_key(settings: dict[str, Any] | None) -> KeyOf | None:
    """A function for the `hash_key` of a cluster; none without one."""
    if not settings:
        return None
    if settings.get("header"):
        return _by_header(settings["header"].encode("latin-1"))
    if settings.get("cookie"):
        return _by_cookie(settings["cookie"].encode("latin-1"))
    if settings.get("query"):
        return _by_query(settings["query"])
    return by_path if settings.get("path") else by_client


def by_client(head: RequestHead, down: Asker) -> int:
    """The client's address, as trusted proxies tell it."""
    return hash_of(down.forwarding.client(head))


def by_path(head: RequestHead, _: Asker) -> int:
    """The path, without the query."""
    return hash_of(head.path)


def _by_header(name: bytes) -> KeyOf:
    def key_of(head: RequestHead, _: Asker) -> int:
        value = head.field(name)
        return _anywhere() if value is None else hash_of(value)

    return key_of


def _by_cookie(name: bytes) -> KeyOf:
    def key_of(head: RequestHead, _: Asker) -> int:
        value = find_cookie(head, name)
        return _anywhere() if value is None else hash_of(value)

    return key_of


def _by_query(name: str) -> KeyOf:
    def key_of(head: RequestHead, _: Asker) -> int:
        given = parse_qs(head.query[1:].decode("ascii"), keep_blank_values=True).get(name)
        return _anywhere() if given is None else hash_of(given[0].encode())

    return key_of


def find_cookie(head: RequestHead, name: bytes) -> bytes | None:
    """The value of a request's cookie; the first, if it comes more than once (RFC 6265 §5.4 puts the nearest there)."""
    for part in head.parts[1:]:
        if field_name(part) != b"cookie":
            continue
        for pair in field_value(part).split(b";"):
            given, _, value = pair.strip(b" \t").partition(b"=")
            if given == name:
                return value.strip(b'"')
    return None


def _anywhere() -> int:
    return random.getrandbits(64)
