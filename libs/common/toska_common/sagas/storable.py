"""What a database keeps: JSON has no NaN, PostgreSQL's texts have no NUL, and no text has half a surrogate pair."""

import math
from typing import Any, cast


def storable_text(text: str) -> str:
    """`text` without what no database takes; errors quote what others sent."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def require_storable(value: Any) -> Any:
    """A JSON value itself.

    Raises:
        ValueError: It holds a number that JSON has not.
    """
    _check(value)
    return value


def _check(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds NaN or infinity, which JSON has not")
    if isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            _check(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _check(inner)
