"""Tokens that were verified, by their very bytes, so that the next request with one costs a look-up.

Bounded in number and bytes. The memory has two halves: what is new or was used goes into the young one, and when that
is full it becomes the old one, whose content is forgotten with the next change unless it is used. So what is in use
stays, without any bookkeeping on a hit. What was refused is not remembered: a sender could make any number of those.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from toska_gateway.worker.auth.verifier import Bearer

MAX_TOKENS: Final = 8192
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of one half, as estimated by `cost_of`."""
_FIXED_COST: Final = 1500
_COST_FACTOR: Final = 4


def cost_of(token_bytes: int) -> int:
    """About how many bytes a remembered token takes, with its claims."""
    return _FIXED_COST + _COST_FACTOR * token_bytes


class TokenCache:
    """Remembers tokens under the bytes that they came in."""

    __slots__ = ("_bytes", "_max_bytes", "_max_tokens", "_old", "young")

    def __init__(self, max_tokens: int = MAX_TOKENS, max_bytes: int = MAX_BYTES) -> None:
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._bytes = 0
        self.young: dict[bytes, Bearer] = {}
        self._old: dict[bytes, Bearer] = {}

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def find_old(self, key: bytes) -> "Bearer | None":
        """What stands under `key` in the old half; it is young again then."""
        found = self._old.pop(key, None)
        if found is not None:
            self.put(key, found)
        return found

    def put(self, key: bytes, bearer: "Bearer") -> None:
        """Remember a token."""
        cost = cost_of(len(key))
        if len(self.young) >= self._max_tokens or self._bytes + cost > self._max_bytes:
            self._old, self.young = self.young, {}
            self._bytes = 0
        self.young[key] = bearer
        self._bytes += cost

    def drop(self, key: bytes) -> None:
        """Forget a token."""
        if self.young.pop(key, None) is not None:
            self._bytes -= cost_of(len(key))
        self._old.pop(key, None)
