"""What a request has to say besides host and path: conditions on headers, cookies, the query and the client's address.

Exact values are what nearly all routes have, and `table` compares those itself; here is everything else.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from toska_common.regexes import Regex

from toska_gateway.worker.edge.networks import Networks, address_of
from toska_gateway.worker.http1 import RequestHead
from toska_gateway.worker.keys import find_cookie

if TYPE_CHECKING:
    from toska_gateway.worker.forwarding import Forwarding

UNIX_NETWORK: Final = "unix:"
UNIX_CLIENT: Final = b"unix"
_KINDS: Final = ("exact", "prefix", "suffix", "contains", "regex")


class ValueTest:
    """Whether a value is what it has to be; what is not there fits only `present: false`, or what is inverted."""

    __slots__ = ("_invert", "_kind", "_regex", "_text", "wants_none")

    def __init__(self, settings: Mapping[str, Any], charset: str) -> None:
        self._invert: bool = settings["invert"]
        self._regex: Regex | None = None
        self._text = b""
        self._kind = "present"
        self.wants_none = settings["present"] is False
        for kind in _KINDS:
            if settings[kind] is not None:
                self._kind = kind
                if kind == "regex":
                    self._regex = Regex(settings[kind])
                else:
                    self._text = settings[kind].encode(charset)

    def holds(self, value: bytes | None) -> bool:
        """Whether it is; `None` stands for a value that is not there."""
        if self.wants_none:
            return value is None
        return (value is not None and self._fits(value)) is not self._invert

    def holds_one_of(self, values: Iterable[bytes]) -> bool:
        """Whether one of several is; inverted, whether none is."""
        if self.wants_none:
            return not any(True for _ in values)
        return any(self._fits(value) for value in values) is not self._invert

    def _fits(self, value: bytes) -> bool:
        kind, text = self._kind, self._text
        if kind == "exact":
            return value == text
        if kind == "prefix":
            return value.startswith(text)
        if kind == "suffix":
            return value.endswith(text)
        if kind == "contains":
            return text in value
        return self._regex is None or self._regex.fits(value)

    def __str__(self) -> str:
        if self._kind == "present":
            return "is there" if self.wants_none else "is not there"
        words = {"exact": "is", "prefix": "begins with", "suffix": "ends with", "contains": "contains"}
        if self._regex is not None:
            return "fits the route's expression" if self._invert else "does not fit the route's expression"
        text = self._text.decode("utf-8", "replace")
        if self._invert:
            return f"{words[self._kind]} {text}"
        negated = {"exact": "is not", "prefix": "does not begin with", "suffix": "does not end with"}
        return f"{negated.get(self._kind, 'does not contain')} {text}"


class Condition:
    """One of them."""

    __slots__ = ()

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether a request meets it."""
        raise NotImplementedError

    def may_hold(self, announced: frozenset[bytes]) -> bool:
        """Whether the request that a preflight asks leave for may meet it, by the headers that it announces."""
        return False

    def told(self) -> str:
        """What is the matter with a request that does not meet it."""
        raise NotImplementedError


class HeaderCondition(Condition):
    """Of a header."""

    __slots__ = ("_name", "_test")

    def __init__(self, name: bytes, test: ValueTest) -> None:
        self._name = name
        self._test = test

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether a request meets it."""
        return self._test.holds(head.field(self._name))

    def may_hold(self, announced: frozenset[bytes]) -> bool:
        """Whether it is announced, where its being there does not speak against it."""
        return self._name in announced and not self._test.wants_none

    def told(self) -> str:
        """What is the matter with a request that does not meet it."""
        return f"header {self._name.decode()} {self._test}"


class CookieCondition(Condition):
    """Of a cookie."""

    __slots__ = ("_name", "_test")

    def __init__(self, name: bytes, test: ValueTest) -> None:
        self._name = name
        self._test = test

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether a request meets it."""
        return self._test.holds(find_cookie(head, self._name))

    def told(self) -> str:
        """What is the matter with a request that does not meet it."""
        return f"cookie {self._name.decode()} {self._test}"


class QueryCondition(Condition):
    """Of the parameters of one name."""

    __slots__ = ("_name", "_test")

    def __init__(self, name: str, test: ValueTest) -> None:
        self._name = name
        self._test = test

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether a request meets it."""
        given = query_of(head).get(self._name, ())
        return self._test.holds_one_of([value.encode("utf-8", "surrogatepass") for value in given])

    def told(self) -> str:
        """What is the matter with a request that does not meet it."""
        return f"query {self._name} {self._test}"


class ClientCondition(Condition):
    """Of the client's own address."""

    __slots__ = ("_networks", "_takes_sockets", "_written")

    def __init__(self, networks: list[str]) -> None:
        self._networks = Networks(one for one in networks if one != UNIX_NETWORK)
        self._takes_sockets = UNIX_NETWORK in networks
        self._written = networks

    def holds(self, head: RequestHead, forwarding: "Forwarding") -> bool:
        """Whether a request meets it; what is no address is in no network."""
        client = forwarding.client(head)
        if client == UNIX_CLIENT:
            return self._takes_sockets
        address = address_of(client)
        return address is not None and address in self._networks

    def told(self) -> str:
        """What is the matter with a request that does not meet it."""
        shown = ", ".join(self._written[:3]) + (", …" if len(self._written) > 3 else "")
        return f"the client's address is not in {shown}"


def query_of(head: RequestHead) -> dict[str, list[str]]:
    """The parameters of a request's query, decoded."""
    # As text: given bytes, parse_qs fails on every value that is not ASCII once it is decoded.
    return parse_qs(head.query[1:].decode("ascii"), keep_blank_values=True)


def exact_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Those of the values of a match that are compared letter by letter: written as they are."""
    return {name: value for name, value in values.items() if isinstance(value, str)}


def compile_conditions(match: Mapping[str, Any], *, exact: bool) -> tuple[Condition, ...]:
    """The conditions of a match, or of a part of a split, in plain data: the cheap ones first.

    Args:
        match: In the words of `toska_common.contracts.routing.Conditions`.
        exact: Whether exact headers and parameters are among them, or compared by the caller.
    """

    def tests(name: str, charset: str = "utf-8", *, always: bool = False) -> list[tuple[str, ValueTest]]:
        values: dict[str, Any] = match.get(name) or {}
        return [
            (key, ValueTest(_EXACTLY | {"exact": value} if isinstance(value, str) else value, charset))
            for key, value in values.items()
            if exact or always or not isinstance(value, str)
        ]

    headers = [HeaderCondition(name.encode("latin-1"), test) for name, test in tests("headers", "latin-1")]
    cookies = [CookieCondition(name.encode("latin-1"), test) for name, test in tests("cookies", always=True)]
    clients = [ClientCondition(match["client_ip"])] if match.get("client_ip") else []
    queries = [QueryCondition(name, test) for name, test in tests("query")]
    return (*clients, *headers, *cookies, *queries)


_EXACTLY: Final[dict[str, Any]] = {
    "exact": None, "prefix": None, "suffix": None, "contains": None, "regex": None, "present": None, "invert": False,
}  # fmt: skip
