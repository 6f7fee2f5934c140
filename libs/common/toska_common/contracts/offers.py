"""Routes that a service asks for in its instances' metadata, and how they travel there.

Consul keeps at most 512 characters under a key, so the text is cut: `toska-routes`, then `toska-routes-2` and so on.
Any client of the registry may write these keys, so reading takes what it finds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from toska_common.contracts.profile import MAX_VALUE

META_ROUTES = "toska-routes"
MAX_PIECES = 8


def encode_offer(routes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The metadata of these routes, in JSON; none if there are none.

    Raises:
        ValueError: They are too long.
    """
    if not routes:
        return {}
    text = json.dumps([dict(route) for route in routes], separators=(",", ":"))  # ASCII: what is cut are characters
    pieces = [text[start : start + MAX_VALUE] for start in range(0, len(text), MAX_VALUE)]
    if len(pieces) > MAX_PIECES:
        raise ValueError(f"come to {len(text)} characters, and the registry has room for {MAX_VALUE * MAX_PIECES}")
    return {_key(number): piece for number, piece in enumerate(pieces, 1)}


def decode_offer(meta: Mapping[str, str]) -> str:
    """The text in an instance's metadata; empty if there is none."""
    if META_ROUTES not in meta:
        return ""
    pieces: list[str] = []
    while len(pieces) < MAX_PIECES and (piece := meta.get(_key(len(pieces) + 1))) is not None:
        pieces.append(piece)
    return "".join(pieces)


def _key(number: int) -> str:
    return META_ROUTES if number == 1 else f"{META_ROUTES}-{number}"
