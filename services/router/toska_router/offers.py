"""Routes that services ask for in their metadata, as far as they may: read once for each text, refusals kept.

The instances of a service may say different things, as they do while a new release is rolled out. What most of them
say counts first; routes that only others have are there too, as long as their name and what they match are free.

Routes may name policies that operators keep `for_services`. If such a policy goes, or does not go together with what
names it, the routes are refused and not the operator's change: no service stands in an operator's way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toska_common.contracts.router import RefusedOffer
from toska_common.contracts.routing import NamedPolicy, Route
from toska_common.routing.document import InvalidDocument
from toska_common.routing.merging import merge
from toska_common.routing.offers import read_offer
from toska_common.routing.order import match_identity
from toska_common.routing.problems import suggestion

Texts = Mapping[str, Sequence[str]]
"""What the instances of each service say, by service."""
Named = Mapping[str, NamedPolicy]
Read = tuple[Route, ...] | RefusedOffer
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Offered:
    """What services get of what they ask for, by service, and what they do not."""

    routes: Mapping[str, Sequence[Route]]
    refused: tuple[RefusedOffer, ...]


class Offers:
    """What services ask for now."""

    def __init__(self) -> None:
        self._texts: Texts = {}
        self._read: dict[_Key, Read] = {}
        self._fitted: dict[_Key, tuple[tuple[NamedPolicy | None, ...], Read]] = {}
        self._without_names: Offered | None = Offered({}, ())

    def take(self, texts: Texts) -> None:
        """Take over what services say."""
        before = self._read
        keys = [(service, text) for service, said in texts.items() for text in said]
        self._texts = texts
        self._read = {key: before.get(key) or _read(*key) for key in keys}
        self._fitted = {key: known for key, known in self._fitted.items() if key in self._read}
        self._without_names = (
            None if any(_names(read) for read in self._read.values()) else self._put_together(self._read)
        )

    def resolve(self, named: Named) -> Offered:
        """What they get with these policies; what is the same stays the same objects."""
        if self._without_names is not None:
            return self._without_names
        return self._put_together({key: self._fit(key, read, named) for key, read in self._read.items()})

    def _fit(self, key: _Key, read: Read, named: Named) -> Read:
        names = _names(read)
        if isinstance(read, RefusedOffer) or not names:
            return read
        parts = tuple(named.get(name) for name in names)
        known = self._fitted.get(key)
        if known is None or any(now is not then for now, then in zip(parts, known[0], strict=True)):
            known = self._fitted[key] = parts, _merge(key[0], read, named)
        return known[1]

    def _put_together(self, fitted: Mapping[_Key, Read]) -> Offered:
        found = {
            service: _together([read for text in said if isinstance(read := fitted[service, text], tuple)])
            for service, said in self._texts.items()
        }
        refused = tuple(read for read in fitted.values() if isinstance(read, RefusedOffer))
        return Offered({service: routes for service, routes in found.items() if routes}, refused)


def _names(read: Read) -> list[str]:
    """The policies that an offer names."""
    return [] if isinstance(read, RefusedOffer) else [name for route in read for name in route.policies_from]


def _read(service: str, text: str) -> Read:
    try:
        return read_offer(service, text)
    except InvalidDocument as error:
        return RefusedOffer(service=service, reasons=tuple(str(problem) for problem in error.problems))


def _merge(service: str, routes: Sequence[Route], named: Named) -> Read:
    usable = {name: policy for name, policy in named.items() if policy.for_services}
    reasons: list[str] = []
    merged: list[Route] = []
    for index, route in enumerate(routes):
        unknown = [*_unknown(f"routes[{index}].policies_from", route, usable)]
        reasons += unknown
        if not unknown:
            try:
                merged.append(merge(route, usable))
            except ValueError as error:
                reasons.append(f"routes[{index}].policies_from: with {', '.join(route.policies_from)}: {error}")
    return RefusedOffer(service=service, reasons=tuple(reasons)) if reasons else tuple(merged)


def _unknown(at: str, route: Route, usable: Named) -> Iterator[str]:
    for index, name in enumerate(route.policies_from):
        if name not in usable:
            yield f'{at}[{index}]: no policy "{name}" has for_services{suggestion(name, usable)}'


def _together(offers: Sequence[Sequence[Route]]) -> tuple[Route, ...]:
    names: set[str] = set()
    matches: set[object] = set()
    found: list[Route] = []
    for route in (route for routes in offers for route in routes):
        identity = match_identity(route.match)
        if route.name not in names and identity not in matches:
            found.append(route)
            names.add(route.name)
            matches.add(identity)
    return tuple(found)
