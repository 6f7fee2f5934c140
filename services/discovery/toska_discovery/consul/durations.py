"""Durations as Go writes and reads them: `1h2m3.5s`, `250ms`."""

import re

_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 2**63 / 1e9


def format_duration(seconds: float) -> str:
    """A duration in Go's words: `1h2m3.5s`, `250ms`; `0s` for none."""
    if not seconds:
        return "0s"
    if abs(seconds) < 1:
        units = (("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
        unit, size = next((pair for pair in units if abs(seconds) >= pair[1]), units[-1])
        return f"{_plain(seconds / size)}{unit}"
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(abs(seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    words = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{words}{_plain(rest)}s"


def _plain(number: float) -> str:
    return f"{round(number, 9):.9f}".rstrip("0").rstrip(".")


def parse_duration(text: str) -> float:
    """Seconds.

    Raises:
        ValueError: With the words of Go's `time.ParseDuration`.
    """
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0.0
    parts = list(_PART.finditer(rest))
    if not rest or "".join(part.group() for part in parts) != rest:
        missing = re.fullmatch(r"[\d.]*\d[\d.]*", rest) is not None
        raise ValueError(f'time: {"missing unit in" if missing else "invalid"} duration "{text}"')
    seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
    if seconds > _LONGEST_S:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * seconds
