"""What an operator must know: lines for the log of the parent, since workers import no logger."""

from collections.abc import Callable
from typing import Any

Tell = Callable[[str, str, dict[str, Any]], None]
"""Has the parent write a line: level, event, fields. Never per request."""


def tell_nobody(level: str, event: str, fields: dict[str, Any]) -> None:
    """Where there is no parent to tell."""
