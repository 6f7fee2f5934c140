"""Operators' regular expressions: RE2's, which take time in proportion to the text whatever the pattern is.

They match bytes, as paths and fields are: `.` is any byte, and a letter beyond ASCII is its bytes in UTF-8. RE2 is
imported with the first pattern, so who has none does not pay for it.
"""

import importlib
import re
from collections.abc import Sequence
from typing import Any, Final

MAX_MEMORY_BYTES: Final = 1024 * 1024
"""What a compiled pattern and its automaton may take; beyond that a pattern is refused."""
_RANGE_BYTES: Final = 256
_REFERENCE: Final = re.compile(
    r"\\(?:(?P<number>[0-9])|g<(?P<name>[A-Za-z_][A-Za-z0-9_]*)>|(?P<itself>\\)|(?P<bad>.|$))"
)


class InvalidRegex(ValueError):
    """The pattern, or what replaces it, cannot be used; says why."""


class Regex:
    """A pattern that a text fits as a whole.

    Attributes:
        groups: How many capturing groups it has.
        prefix: What every text that fits begins with; perhaps less than what could be known.
    """

    __slots__ = ("_fit", "_names", "groups", "prefix")

    def __init__(self, pattern: str) -> None:
        """Compile.

        Raises:
            InvalidRegex: It is no pattern of RE2, or too large a one.
        """
        try:
            re2: Any = importlib.import_module("re2")  # the wheel has no types
        except ImportError as error:
            raise InvalidRegex("regular expressions need google-re2: install toska-common[routing]") from error
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = MAX_MEMORY_BYTES
        try:
            written = pattern.encode()
            compiled = re2.compile(written, options)
            anchored = re2.compile(b"^(?:" + written + b")$", options)
        except UnicodeEncodeError as error:
            raise InvalidRegex("a regular expression is text in UTF-8") from error
        except re2.error as error:
            raise InvalidRegex(f"no regular expression of RE2: {_reason(error)}") from error
        self._fit: Any = compiled.fullmatch
        self._names: dict[str, int] = {name.decode(): number for name, number in compiled.groupindex.items()}
        self.groups: int = compiled.groups
        self.prefix = _common_prefix(anchored, re2.error)

    def fits(self, text: bytes) -> bool:
        """Whether the whole text matches."""
        return self._fit(text) is not None

    def captures(self, text: bytes) -> Sequence[bytes | None] | None:
        """The whole text and what each group captured, or `None` if it does not match."""
        found = self._fit(text)
        return None if found is None else (text, *found.groups())

    def group(self, name: str) -> int | None:
        """The number of a named group."""
        return self._names.get(name)


class Replacement:
    r"""A text with references to captured groups: `\1` to `\9`, `\g<name>`, `\0` for all, `\\` for itself."""

    __slots__ = ("_parts",)

    def __init__(self, text: str, regex: Regex | None) -> None:
        """Read it; without a regex there is nothing to refer to.

        Raises:
            InvalidRegex: It refers to a group that is not there.
        """
        self._parts: list[bytes | int] = []
        at = 0
        for reference in _REFERENCE.finditer(text):
            self._parts.append(text[at : reference.start()].encode())
            self._parts.append(b"\\" if reference["itself"] else _group(reference, regex))
            at = reference.end()
        self._parts.append(text[at:].encode())

    def expand(self, captures: Sequence[bytes | None]) -> bytes:
        """The text with what was captured; a group that took no part is empty."""
        return b"".join(part if isinstance(part, bytes) else captures[part] or b"" for part in self._parts)


def _group(reference: re.Match[str], regex: Regex | None) -> int:
    written = reference[0]
    if reference["bad"] is not None:
        raise InvalidRegex(f"{written} is no reference: write \\1 to \\9, \\g<name>, or \\\\ for a backslash")
    if regex is None:
        raise InvalidRegex(f"{written} refers to a regular expression, and there is none")
    number = regex.group(reference["name"]) if reference["name"] else int(reference["number"])
    if number is None or number > regex.groups:
        raise InvalidRegex(f"{written} refers to a group that the regular expression does not have")
    return number


def _reason(error: Exception) -> str:
    raw: object = error.args[0] if error.args else ""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)


def _common_prefix(anchored: Any, failure: type[Exception]) -> bytes:
    # All that fits lies between two texts, so it begins with what both begin with.
    try:
        lowest, highest = anchored.possiblematchrange(_RANGE_BYTES)
    except failure:
        return b""
    length = next((i for i, (a, b) in enumerate(zip(lowest, highest, strict=False)) if a != b), None)
    return lowest[: min(len(lowest), len(highest)) if length is None else length]
