"""Routes that services ask for in their metadata, as far as they may: read once for each text, refusals kept.

The instances of a service may say different things, as they do while a new release is rolled out. What most of them
say counts first; routes that only others have are there too, as long as their name and what they match are free.
"""

from collections.abc import Mapping, Sequence

import structlog
from toska_common.contracts.router import RefusedOffer
from toska_common.contracts.routing import Route
from toska_common.routing.document import InvalidDocument
from toska_common.routing.offers import read_offer
from toska_common.routing.order import match_identity

log = structlog.get_logger(__name__)

Texts = Mapping[str, Sequence[str]]
"""What the instances of each service say, by service."""


class Offers:
    """What services ask for now."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], tuple[Route, ...] | RefusedOffer] = {}
        self.routes: Mapping[str, Sequence[Route]] = {}
        self.refused: tuple[RefusedOffer, ...] = ()

    def take(self, texts: Texts) -> None:
        """Take over what services say."""
        before, self._read = self._read, {}
        for service, said in texts.items():
            for text in said:
                self._read[service, text] = before.get((service, text)) or _read(service, text)
        found = {
            service: _together([read for text in said if isinstance(read := self._read[service, text], tuple)])
            for service, said in texts.items()
        }
        self.routes = {service: routes for service, routes in found.items() if routes}
        self.refused = tuple(read for read in self._read.values() if isinstance(read, RefusedOffer))


def _read(service: str, text: str) -> tuple[Route, ...] | RefusedOffer:
    try:
        return read_offer(service, text)
    except InvalidDocument as error:
        reasons = tuple(str(problem) for problem in error.problems)
        log.warning("offered_routes_refused", service_name=service, reasons=reasons)
        return RefusedOffer(service=service, reasons=reasons)


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
