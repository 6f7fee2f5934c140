"""Where routes stand in the table, so that a request meets few of them: by path, and then by what they want besides.

    a host's Buckets ── exact path ─────────▶ Bucket: its routes in order of rank
                     ── template, by segment ▶    │ when these become many
                     ── expression, by how it ▶   └──▶ Keyed: by the value of a header, cookie, parameter, by method
                        begins                              or by client, one Bucket each, and so on
                     ── prefix, by segment ──▶

What a request is compared with besides are the routes that nothing exact tells apart.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from toska_gateway.worker.conditions import UNIX_CLIENT, UNIX_NETWORK, query_of
from toska_gateway.worker.edge.cors import preflighted_method
from toska_gateway.worker.edge.networks import address_of, placed
from toska_gateway.worker.http1 import RequestHead, field_name, field_value

if TYPE_CHECKING:
    from toska_gateway.worker.forwarding import Forwarding
    from toska_gateway.worker.route import Route

_FEW: Final = 8
"""So many routes are quicker tried one by one than told apart by a look-up."""
_SEVERAL: Final = 4
"""With more names than this it is quicker to look at what the request has."""
HEADER: Final = 0
COOKIE: Final = 1
QUERY: Final = 2
METHOD: Final = 3
CLIENT: Final = 4

Key = tuple[int, bytes]
"""What tells routes apart: the kind of a condition, and a name."""


class Bucket:
    """Routes that stand at one place.

    Attributes:
        count: How many there are.
        first: The lowest rank in it.
        routes: Those that are tried one by one, in order of rank.
        keyed: The others, if it has become many.
    """

    __slots__ = ("_spent", "count", "first", "keyed", "routes")

    def __init__(self, first: int, spent: frozenset[Key] = frozenset()) -> None:
        self.count = 0
        self.first = first
        self.routes: list[Route] = []
        self.keyed: Keyed | None = None
        self._spent = spent

    def add(self, route: "Route") -> None:
        """Append a route: it ranks below all that are here."""
        self.count += 1
        if self.keyed is None:
            self.routes.append(route)
            if len(self.routes) > _FEW:
                routes, self.routes, self.keyed = self.routes, [], Keyed(self._spent)
                for one in routes:
                    self._put(self.keyed, one)
        else:
            self._put(self.keyed, route)

    def _put(self, keyed: "Keyed", route: "Route") -> None:
        if not keyed.add(route):
            self.routes.append(route)

    def collect(self, found: "dict[str, Route]") -> None:
        """Add every route that stands here, by name."""
        for route in self.routes:
            found[route.name] = route
        if self.keyed is not None:
            for bucket in self.keyed.buckets():
                bucket.collect(found)

    def find(self, head: RequestHead, forwarding: "Forwarding", rank: int) -> "Route | None":
        """The first route that takes a request, if it ranks before `rank`."""
        best: Route | None = None
        for route in self.routes:
            if route.rank >= rank:
                break
            if not route.conditions or route.holds(head, forwarding):
                best, rank = route, route.rank
                break
        if self.keyed is not None:
            found = self.keyed.find(head, forwarding, rank)
            if found is not None:
                return found
        return best

    def collect_methods(self, head: RequestHead, forwarding: "Forwarding", found: set[bytes]) -> None:
        """Add the methods of routes that would take a request if it had one of them."""
        for route in self.routes:
            if route.methods and not route.methods <= found:
                found |= route.methods_if_elsewhere(head, forwarding)
        if self.keyed is not None:
            for bucket in self.keyed.fitting(head, forwarding, any_method=True):
                bucket.collect_methods(head, forwarding, found)


class Keyed:
    """Routes told apart by what they want exactly."""

    __slots__ = ("_clients", "_cookies", "_headers", "_methods", "_preflights", "_query", "_shifts", "_spent")

    def __init__(self, spent: frozenset[Key]) -> None:
        self._spent = spent
        self._headers: dict[bytes, dict[bytes, Bucket]] = {}
        self._cookies: dict[bytes, dict[bytes, Bucket]] = {}
        self._query: dict[bytes, dict[bytes, Bucket]] = {}
        self._methods: dict[bytes, Bucket] = {}
        self._clients: dict[bytes, Bucket] = {}
        self._shifts: list[tuple[int, int]] = []
        self._preflights: list[Route] = []  # whose headers and method a preflight only announces

    def add(self, route: "Route") -> bool:
        """Put a route where it is told from most others; `False` if nothing that it wants could."""
        best: tuple[int, int] | None = None
        chosen: tuple[Key, list[bytes]] | None = None
        for key, values in route.tells():
            if key in self._spent:
                continue
            places = self._known_places(key)
            crowd = max((places[value].count for value in values if value in places), default=0)
            score = (crowd, -len(places))  # among equals by what there is already: fewer look-ups
            if best is None or score < best:
                best, chosen = score, (key, values)
        if chosen is None:
            return False
        key, values = chosen
        places = self._places(key)
        for value in values:
            bucket = places.get(value)
            if bucket is None:
                bucket = places[value] = Bucket(route.rank, self._spent | {key})
            bucket.add(route)
        if key[0] == CLIENT:
            self._note_shifts(route)
        if route.preflights:
            self._preflights.append(route)
        return True

    def buckets(self) -> "list[Bucket]":
        """All of them."""
        named = (*self._headers.values(), *self._cookies.values(), *self._query.values())
        found = [bucket for values in named for bucket in values.values()]
        return [*found, *self._methods.values(), *self._clients.values()]

    def _known_places(self, key: Key) -> dict[bytes, Bucket]:
        kind, name = key
        named = self._named(kind)
        return named.get(name, {}) if named is not None else self._methods if kind == METHOD else self._clients

    def _places(self, key: Key) -> dict[bytes, Bucket]:
        kind, name = key
        named = self._named(kind)
        return self._known_places(key) if named is None else named.setdefault(name, {})

    def _named(self, kind: int) -> dict[bytes, dict[bytes, Bucket]] | None:
        if kind == HEADER:
            return self._headers
        if kind == COOKIE:
            return self._cookies
        return self._query if kind == QUERY else None

    def _note_shifts(self, route: "Route") -> None:
        for network in route.networks:
            if network != UNIX_NETWORK:
                version, shift, _ = placed(network)
                if (version, shift) not in self._shifts:
                    self._shifts.append((version, shift))

    def find(self, head: RequestHead, forwarding: "Forwarding", rank: int) -> "Route | None":
        """The first route that takes a request, if it ranks before `rank`."""
        best: Route | None = None
        for bucket in self.fitting(head, forwarding):
            if bucket.first < rank:
                found = bucket.find(head, forwarding, rank)
                if found is not None:
                    best, rank = found, found.rank
        if self._preflights and preflighted_method(head) is not None:
            for route in self._preflights:
                if route.rank >= rank:
                    break
                if route.holds(head, forwarding):
                    return route
        return best

    def fitting(self, head: RequestHead, forwarding: "Forwarding", *, any_method: bool = False) -> list[Bucket]:
        """The buckets that a request falls into."""
        found: list[Bucket] = []
        if self._headers:
            self._by_header(head, found)
        if self._cookies:
            _by_pairs(self._cookies, _cookies_of(head), found)
        if self._query:
            given = query_of(head).items()
            _by_pairs(self._query, ((_text(name), _text(value)) for name, values in given for value in values), found)
        if self._methods:
            if any_method:
                found += self._methods.values()
            else:
                append(self._methods.get(head.method), found)
        if self._clients:
            self._by_client(forwarding.client(head), found)
        return found

    def _by_header(self, head: RequestHead, found: list[Bucket]) -> None:
        headers = self._headers
        names: Iterable[bytes] = headers
        if len(headers) > _SEVERAL:
            sent = {field_name(part) for part in head.parts[1:]}.union(head.special)
            names = [name for name in sent if name in headers]  # (a set's intersection would visit all of the headers)
        for name in names:
            value = head.field(name)
            if value is not None:
                append(headers[name].get(value), found)

    def _by_client(self, client: bytes, found: list[Bucket]) -> None:
        if client == UNIX_CLIENT:
            append(self._clients.get(client), found)
            return
        address = address_of(client)
        if address is not None:
            value = int(address)
            for version, shift in self._shifts:
                if version == address.version:
                    append(self._clients.get(network_key(version, shift, value >> shift)), found)


def network_key(version: int, shift: int, prefix: int) -> bytes:
    """What stands for a network."""
    return b"%d/%d/%d" % (version, shift, prefix)


def append(bucket: Bucket | None, found: list[Bucket]) -> None:
    """Add a bucket, if there is one."""
    if bucket is not None:
        found.append(bucket)


def _by_pairs(
    places: dict[bytes, dict[bytes, Bucket]], pairs: Iterable[tuple[bytes, bytes]], found: list[Bucket]
) -> None:
    for name, value in pairs:
        values = places.get(name)
        if values is not None:
            bucket = values.get(value)
            if bucket is not None and bucket not in found:
                found.append(bucket)


def _cookies_of(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """The cookies of a request; of several of a name the first counts (`keys.find_cookie`)."""
    found: dict[bytes, bytes] = {}
    for part in head.parts[1:]:
        if field_name(part) == b"cookie":
            for pair in field_value(part).split(b";"):
                name, _, value = pair.strip(b" \t").partition(b"=")
                found.setdefault(name, value.strip(b'"'))
    return list(found.items())


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
