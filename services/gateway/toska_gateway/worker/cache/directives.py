"""Reading Cache-Control (RFC 9111 §5.2), and what is near it: Pragma in requests, the extensions of RFC 5861 and 8246.

Whatever can be read in two ways is read in the one that keeps less: a field that is no list of directives is
`no-store`, a number that is none makes a response stale, and of a directive that stands twice the smaller number
counts.
"""

import re
from typing import Final

from toska_gateway.worker.http1.grammar import remember

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEMBER: Final = re.compile(
    rb"[ \t]*(?:(" + _TOKEN + rb")(?:=(?:(" + _TOKEN + rb')|"((?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e'
    rb'\x80-\xff])*)"))?)?[ \t]*(?:,|\Z)'
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
MAX_SECONDS: Final = 2**31
"""What a number of seconds that is too large to be meant is taken for (RFC 9111 §1.2.2)."""


def read_members(value: bytes) -> dict[bytes, list[bytes | None]] | None:
    """The directives of a field by lower-case name, each with its arguments; `None` if it is no list of directives."""
    found: dict[bytes, list[bytes | None]] = {}
    at, end = 0, len(value)
    while at < end:
        match = _MEMBER.match(value, at)
        if match is None:
            return None
        name, token, quoted = match.groups()
        if name is not None:
            argument = token if quoted is None else _ESCAPED.sub(rb"\1", quoted)
            found.setdefault(name.lower(), []).append(argument)
        at = match.end()
    return found


def read_seconds(argument: bytes | None) -> int | None:
    """A number of seconds (RFC 9111 §1.2.2); `None` if it is none."""
    if argument is None or not argument.isdigit():
        return None
    return MAX_SECONDS if len(argument) > 10 else min(int(argument), MAX_SECONDS)


def _least(arguments: list[bytes | None] | None, wrong: int) -> int | None:
    """The smallest of a directive's arguments, `wrong` standing for one that is no number; `None` if it is absent."""
    if arguments is None:
        return None
    numbers = [read_seconds(argument) for argument in arguments]
    return min(wrong if number is None else number for number in numbers)


class ResponseDirectives:
    """What a response's Cache-Control says.

    `private` and `no_cache` also stand for their forms that name fields: whole responses are kept from others, or
    validated, and no field of them is cut out.

    Attributes:
        must_revalidate: Not to be used stale; proxy-revalidate says so to shared caches.
        for_authorized: It may be stored although the request had credentials (RFC 9111 §3.5).
    """

    __slots__ = (
        "for_authorized", "immutable", "max_age", "must_revalidate", "must_understand", "no_cache", "no_store",
        "private", "public", "s_maxage", "stale_if_error", "stale_while_revalidate",
    )  # fmt: skip

    def __init__(self, value: bytes) -> None:
        read = read_members(value)
        members: dict[bytes, list[bytes | None]] = {b"no-store": []} if read is None else read
        self.no_store = b"no-store" in members
        self.no_cache = b"no-cache" in members
        self.private = b"private" in members
        self.public = b"public" in members
        self.must_revalidate = b"must-revalidate" in members or b"proxy-revalidate" in members
        self.for_authorized = self.public or not members.keys().isdisjoint((b"must-revalidate", b"s-maxage"))
        self.must_understand = b"must-understand" in members
        self.immutable = b"immutable" in members
        self.max_age = _least(members.get(b"max-age"), 0)
        self.s_maxage = _least(members.get(b"s-maxage"), 0)
        self.stale_while_revalidate = _least(members.get(b"stale-while-revalidate"), 0)
        self.stale_if_error = _least(members.get(b"stale-if-error"), 0)


class RequestDirectives:
    """What a request's Cache-Control says.

    Attributes:
        max_stale: Seconds past its freshness that a response may be; -1: any.
    """

    __slots__ = ("max_age", "max_stale", "min_fresh", "no_cache", "no_store", "only_if_cached", "stale_if_error")

    def __init__(self, value: bytes) -> None:
        read = read_members(value)
        members: dict[bytes, list[bytes | None]] = {b"no-cache": []} if read is None else read
        self.no_store = b"no-store" in members
        self.no_cache = b"no-cache" in members
        self.only_if_cached = b"only-if-cached" in members
        self.max_age = _least(members.get(b"max-age"), 0)
        self.min_fresh = _least(members.get(b"min-fresh"), MAX_SECONDS)
        self.stale_if_error = _least(members.get(b"stale-if-error"), 0)
        stale = members.get(b"max-stale")
        self.max_stale: int | None = -1 if stale == [None] else _least(stale, 0)


NOTHING_ASKED: Final = RequestDirectives(b"")
NOTHING_SAID: Final = ResponseDirectives(b"")
_AS_NO_CACHE: Final = RequestDirectives(b"no-cache")

_requests: dict[bytes, RequestDirectives] = {}
_responses: dict[bytes, ResponseDirectives] = {}


def read_request_directives(cache_control: bytes | None, pragma: bytes | None = None) -> RequestDirectives:
    """What a request asks of caches; Pragma counts where there is no Cache-Control (RFC 9111 §5.4)."""
    if cache_control is None:
        members = None if pragma is None else read_members(pragma)
        return _AS_NO_CACHE if members is not None and b"no-cache" in members else NOTHING_ASKED
    known = _requests.get(cache_control)
    if known is None:
        known = RequestDirectives(cache_control)
        remember(_requests, cache_control, known)
    return known


def read_response_directives(cache_control: bytes | None) -> ResponseDirectives:
    """What a response tells caches."""
    if cache_control is None:
        return NOTHING_SAID
    known = _responses.get(cache_control)
    if known is None:
        known = ResponseDirectives(cache_control)
        remember(_responses, cache_control, known)
    return known
