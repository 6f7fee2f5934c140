"""Regular expressions as Go has them: RE2's, which cannot be made to run long, with Go's words for mistakes."""

import importlib
from collections.abc import Callable
from typing import Any

from toska_discovery.filters.gotext import quote
from toska_discovery.filters.problems import InvalidFilter

_re2: Any = importlib.import_module("re2")  # the wheel has no types, so every use would be an error of its own

MAX_MEMORY_BYTES = 1024 * 1024
"""What a compiled pattern and its automaton may take; beyond that a pattern is refused."""

_WORDS = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "bad repetition operator": "invalid nested repetition operator",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid named capture group": "invalid named capture",
    "invalid repetition size": "invalid repeat count",
}
_TRAILING_BACKSLASH = "trailing \\"


def compile_regex(pattern: str) -> Callable[[str], bool]:
    """A test for whether `pattern` matches anywhere in a text.

    Raises:
        InvalidFilter: It is not a regular expression, or too large a one.
    """
    search = _compile(pattern)
    return lambda text: search(text) is not None


def compile_groups(pattern: str) -> Callable[[str], tuple[str, ...]]:
    """What `pattern` and each of its groups match in a text; empty ones did not; none at all if it does not match.

    Raises:
        InvalidFilter: It is not a regular expression, or too large a one.
    """
    search = _compile(pattern)

    def groups(text: str) -> tuple[str, ...]:
        found = search(text)
        return () if found is None else (found.group(0), *(group or "" for group in found.groups()))

    return groups


def _compile(pattern: str) -> Any:
    options = _re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY_BYTES
    try:
        return _re2.compile(pattern, options).search
    except UnicodeEncodeError as error:
        raise _refusal(pattern, "invalid UTF-8") from error
    except _re2.error as error:
        raise _refusal(pattern, _in_words_of_go(error)) from error


def _in_words_of_go(error: Exception) -> str:
    raw = error.args[0] if error.args else b""
    text = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
    if text.startswith(_TRAILING_BACKSLASH):
        return "trailing backslash at end of expression: ``"
    reason, separator, where = text.partition(": ")
    return f"{_WORDS.get(reason, reason)}: `{where}`" if separator else reason


def _refusal(pattern: str, reason: str) -> InvalidFilter:
    return InvalidFilter(f"Failed to compile regular expression {quote(pattern)}: error parsing regexp: {reason}")
