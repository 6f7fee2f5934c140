"""Weighted rendezvous hashing: which of a few parts a key belongs to, by weight, and by nothing but both.

Each part scores `weight / -ln(u)`, with `u` in (0, 1) a hash of the part's name and the key, and the best takes the key
(Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005). A part whose weight grows against the others
takes keys from them and gives none away; the keys of one that leaves spread over the others, and only these move.
"""

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from typing import Any

_BITS = 53


class Rendezvous:
    """Parts with a name and a weight.

    Args:
        names: What the parts' scores follow from, besides the key.
        weights: In the same order; a part of weight 0 takes nothing.
    """

    __slots__ = ("_parts",)

    def __init__(self, names: Sequence[str], weights: Sequence[float]) -> None:
        self._parts: list[tuple[str, float, Any]] = [
            (name, weight, blake2b(name.encode() + b"\0", digest_size=8))
            for name, weight in zip(names, weights, strict=True)
            if weight > 0
        ]

    def pick(self, key: bytes) -> str:
        """The name of the part that a key belongs to; there is one with a weight."""
        best, chosen = -1.0, ""
        for name, weight, seeded in self._parts:
            hashed = seeded.copy()
            hashed.update(key)
            # The upper bits, and never 0 or 1: what a float tells apart.
            drawn = ((int.from_bytes(hashed.digest(), "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)
            score = -weight / log(drawn)
            if score > best:
                best, chosen = score, name
        return chosen
