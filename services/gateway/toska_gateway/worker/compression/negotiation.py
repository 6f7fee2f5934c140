"""Choosing a content coding by a request's Accept-Encoding (RFC 9110 §12.5.3)."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from toska_gateway.worker.http1.grammar import remember

_MEMBER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:[ \t]*;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")
_CODING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ANY: Final = b"*"
_IDENTITY: Final = b"identity"
_WORDS: Final = 256
"""Different values that are remembered; browsers know a handful."""


class Choice(NamedTuple):
    """`coding` is what the client prefers of what is offered, if anything; `required`: it refuses what is not coded."""

    coding: str | None
    required: bool


_NOTHING: Final = Choice(None, required=False)


def read_accept_encoding(value: bytes) -> dict[bytes, float]:
    """The weight of each coding by its lower-case name; 0 is a refusal.

    A member that cannot be read is one that is not accepted: doubtful bytes are no promise to decode anything.
    """
    weights: dict[bytes, float] = {}
    for member in value.split(b","):
        text = member.strip(b" \t")
        match = _MEMBER.fullmatch(text)
        if match is not None:
            weights.setdefault(_plain_name(match[1]), 1.0 if match[2] is None else float(match[2]))
        elif (name := _CODING.match(text)) is not None:
            weights.setdefault(_plain_name(name[0]), 0.0)
    return weights


def _plain_name(name: bytes) -> bytes:
    coding = name.lower()
    return b"gzip" if coding == b"x-gzip" else coding  # RFC 9110 §8.4.1.3: they are the same


class Negotiator:
    """Chooses among the codings of one route, the one preferred by the server first; remembers what it chose."""

    __slots__ = ("_known", "_offers")

    def __init__(self, offers: Sequence[str]) -> None:
        self._offers = [(offer, offer.encode()) for offer in offers]
        self._known: dict[bytes, Choice] = {}

    def choose(self, accept: bytes | None) -> Choice:
        """What to send to a client with this Accept-Encoding.

        Without the field any coding would be acceptable, but those who do not send it are the ones that cannot decode.
        """
        if not accept:
            return _NOTHING
        known = self._known.get(accept)
        if known is None:
            known = self._choose(read_accept_encoding(accept))
            remember(self._known, accept, known, _WORDS)
        return known

    def _choose(self, weights: dict[bytes, float]) -> Choice:
        other = weights.get(_ANY, 0.0)
        plain = weights.get(_IDENTITY)
        required = plain == 0.0 or (plain is None and weights.get(_ANY) == 0.0)
        best, best_weight = None, 0.0
        for offer, name in self._offers:
            weight = weights.get(name, other)
            if weight > best_weight:  # of equal ones the first offered
                best, best_weight = offer, weight
        if plain is not None and plain > best_weight:
            best = None  # the client says that it would rather have it as it is
        return Choice(best, required)
