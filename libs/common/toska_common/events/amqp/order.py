"""Deliveries of one key, one after the other. Pure.

free ── offer ──▶ busy (handed out) ── offer ──▶ waits ── release ──▶ the next is handed out … ──▶ free
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyOrder(Generic[T]):
    """Which deliveries may be handed out now. Those without a key always may."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}

    def offer(self, key: str | None, delivery: T) -> bool:
        """Whether it may be handed out now; if not, `release` gives it out."""
        if key is None:
            return True
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque()
            return True
        waiting.append(delivery)
        return False

    def release(self, key: str | None) -> T | None:
        """The one that was handed out is settled; the next of its key."""
        if key is None:
            return None
        waiting = self._waiting.get(key)
        if not waiting:
            self._waiting.pop(key, None)
            return None
        return waiting.popleft()
