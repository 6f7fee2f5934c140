"""Where routes stand by path, among those of one host pattern: by exact path, template, expression or prefix.

Filled one by one, or made of others by a few changes, which leaves those as they were.
"""

from bisect import insort
from typing import TYPE_CHECKING

from toska_gateway.worker.buckets import Bucket, append
from toska_gateway.worker.http1 import ASTERISK

if TYPE_CHECKING:
    from toska_gateway.worker.route import Route


class _Segment:
    """A place in the templates of a host."""

    __slots__ = ("any", "here", "literal", "rest")

    def __init__(self) -> None:
        self.literal: dict[bytes, _Segment] = {}
        self.any: _Segment | None = None
        self.here: Bucket | None = None
        self.rest: Bucket | None = None

    def add(self, route: "Route", segments: tuple[bytes | None, ...], *, tail: bool) -> None:
        """Put a route at the end of its segments."""
        node = self
        for segment in segments:
            if segment is not None:
                node = node.literal.setdefault(segment, _Segment())
            else:
                if node.any is None:
                    node.any = _Segment()
                node = node.any
        bucket = node.rest if tail else node.here
        if bucket is None:
            bucket = Bucket(route.rank)
            if tail:
                node.rest = bucket
            else:
                node.here = bucket
        bucket.add(route)

    @property
    def empty(self) -> bool:
        """Whether nothing is left here and below."""
        return not self.literal and self.any is None and self.here is None and self.rest is None

    def at(self, segments: tuple[bytes | None, ...], *, tail: bool) -> Bucket | None:
        """The bucket at the end of these segments, if there is one."""
        node: _Segment | None = self
        for segment in segments:
            if node is None:
                return None
            node = node.any if segment is None else node.literal.get(segment)
        if node is None:
            return None
        return node.rest if tail else node.here

    def replaced(
        self, segments: tuple[bytes | None, ...], start: int, bucket: Bucket | None, *, tail: bool
    ) -> "_Segment":
        """The same with another bucket at the end of the segments from `start` on; what is not on the way is shared."""
        copy = _Segment()
        copy.literal, copy.any, copy.here, copy.rest = self.literal, self.any, self.here, self.rest
        if start == len(segments):
            if tail:
                copy.rest = bucket
            else:
                copy.here = bucket
            return copy
        segment = segments[start]
        child = self.any if segment is None else self.literal.get(segment)
        below = (child or _Segment()).replaced(segments, start + 1, bucket, tail=tail)
        left = None if below.empty else below
        if segment is None:
            copy.any = left
        else:
            copy.literal = dict(self.literal)
            if left is None:
                copy.literal.pop(segment, None)
            else:
                copy.literal[segment] = left
        return copy

    def walk(self, path: bytes, start: int, found: list[Bucket]) -> None:
        """Add every bucket whose template the rest of a path fits; that begins at `start`, after its slash."""
        if start > len(path):
            append(self.here, found)
            return
        append(self.rest, found)
        end = path.find(b"/", start)
        if end < 0:
            end = len(path)
        segment = path[start:end]
        literal = self.literal.get(segment)
        if literal is not None:
            literal.walk(path, end + 1, found)
        if self.any is not None and segment:
            self.any.walk(path, end + 1, found)


class Buckets:
    """The routes of one host pattern."""

    __slots__ = ("_depth", "_exact", "_expressions", "_lengths", "_prefixes", "_root", "_templates")

    def __init__(self) -> None:
        self._root: Bucket | None = None  # the bucket that every path falls into
        self._depth = 0  # segments of the longest prefix
        self._exact: dict[bytes, Bucket] = {}
        self._prefixes: dict[bytes, Bucket] = {}
        self._expressions: dict[bytes, Bucket] = {}
        self._lengths: list[int] = []  # of what expressions begin with, in order
        self._templates: _Segment | None = None

    def add(self, route: "Route") -> None:
        """Append a route: it ranks below all that are here."""
        template = route.template
        if route.path is not None:
            _put(self._exact, route.path, route)
        elif template is not None:
            if self._templates is None:
                self._templates = _Segment()
            self._templates.add(route, template.segments, tail=template.tail)
        elif route.path_regex is not None:
            # It stands with what all paths begin with that fit, so it costs those nothing that do not.
            prefix = route.path_regex.prefix
            _put(self._expressions, prefix, route)
            if len(prefix) not in self._lengths:
                insort(self._lengths, len(prefix))
        else:
            prefix = route.prefix.rstrip(b"/")
            _put(self._prefixes, prefix, route)
            if not prefix:
                self._root = self._prefixes[prefix]
            self._depth = max(self._depth, prefix.count(b"/"))

    @property
    def empty(self) -> bool:
        """Whether no route is left."""
        return not self._exact and not self._prefixes and not self._expressions and self._templates is None

    def crowd(self, route: "Route") -> int:
        """How many routes stand where this one does, or would."""
        bucket = self._at(route)
        return 1 if bucket is None else bucket.count

    def changed(self, gone: "list[Route]", come: "list[Route]") -> "Buckets":
        """Buckets in which some routes are gone and others, with their ranks, have come; these stay as they are."""
        made = Buckets()
        made._root, made._depth, made._lengths, made._templates = (
            self._root,
            self._depth,
            self._lengths,
            self._templates,
        )
        made._exact, made._prefixes, made._expressions = (
            dict(self._exact),
            dict(self._prefixes),
            dict(self._expressions),
        )
        places: dict[tuple[int, bytes], Route] = {_place(route): route for route in (*gone, *come)}
        for place, example in places.items():
            there: dict[str, Route] = {}
            bucket = self._at(example)
            if bucket is not None:
                bucket.collect(there)
            for route in gone:
                if _place(route) == place:
                    del there[route.name]
            for route in come:
                if _place(route) == place:
                    there[route.name] = route
            made._replace(example, _bucket_of(list(there.values())))
        made._measure(self)
        return made

    def _at(self, route: "Route") -> Bucket | None:
        template = route.template
        if template is not None:
            return None if self._templates is None else self._templates.at(template.segments, tail=template.tail)
        places, key = self._keyed(route)
        return places.get(key)

    def _keyed(self, route: "Route") -> tuple[dict[bytes, Bucket], bytes]:
        """Where a route stands that has no template."""
        if route.path is not None:
            return self._exact, route.path
        if route.path_regex is not None:
            return self._expressions, route.path_regex.prefix
        return self._prefixes, route.prefix.rstrip(b"/")

    def _replace(self, route: "Route", bucket: Bucket | None) -> None:
        """Put another bucket where a route stands."""
        template = route.template
        if template is not None:
            root = self._templates or _Segment()
            root = root.replaced(template.segments, 0, bucket, tail=template.tail)
            self._templates = None if root.empty else root
            return
        places, key = self._keyed(route)
        if bucket is None:
            places.pop(key, None)
        else:
            places[key] = bucket

    def _measure(self, before: "Buckets") -> None:
        """Work out again what follows from which places there are."""
        self._root = self._prefixes.get(b"")
        if self._prefixes.keys() != before._prefixes.keys():
            self._depth = max((prefix.count(b"/") for prefix in self._prefixes), default=0)
        if self._expressions.keys() != before._expressions.keys():
            self._lengths = sorted({len(prefix) for prefix in self._expressions})

    def candidates(self, path: bytes) -> list[Bucket]:
        """Every bucket that a path falls into."""
        found: list[Bucket] = []
        if self._exact:
            bucket = self._exact.get(path)
            if bucket is not None:
                found.append(bucket)
        if self._templates is not None and path != ASTERISK:
            self._templates.walk(path, 1, found)
        for length in self._lengths:
            if length > len(path) or path == ASTERISK:
                break
            bucket = self._expressions.get(path[:length])
            if bucket is not None:
                found.append(bucket)
        prefixes = self._prefixes
        # No prefix has more segments than `depth`, so what lies beyond need not be looked up.
        end = 0
        for _ in range(self._depth):
            end = path.find(b"/", end + 1)
            bucket = prefixes.get(path[:end] if end >= 0 else path)
            if bucket is not None:
                found.append(bucket)
            if end < 0:
                break
        if self._root is not None and path != ASTERISK:
            found.append(self._root)
        return found


def _place(route: "Route") -> tuple[int, bytes]:
    """What routes have in common that stand at the same place of a host."""
    if route.template is not None:
        return 0, repr((route.template.segments, route.template.tail)).encode()
    if route.path is not None:
        return 1, route.path
    if route.path_regex is not None:
        return 2, route.path_regex.prefix
    return 3, route.prefix.rstrip(b"/")


def _bucket_of(routes: "list[Route]") -> Bucket | None:
    """The bucket of these routes; `None` for none."""
    routes.sort(key=_rank_of)
    bucket: Bucket | None = None
    for route in routes:
        if bucket is None:
            bucket = Bucket(route.rank)
        bucket.add(route)
    return bucket


def _rank_of(route: "Route") -> int:
    return route.rank


def _put(places: dict[bytes, Bucket], key: bytes, route: "Route") -> None:
    bucket = places.get(key)
    if bucket is None:
        bucket = places[key] = Bucket(route.rank)
    bucket.add(route)
