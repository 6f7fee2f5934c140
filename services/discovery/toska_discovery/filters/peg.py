"""A cursor over a text for recursive descent, one alternative after the other, as in a parsing expression grammar.

It remembers the farthest place where something else was expected, and the mistakes that were recognised by name; so a
refusal can say where the text went wrong, in the words of the parser generator that Consul's grammar goes through.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from toska_discovery.filters.gotext import quote

T = TypeVar("T")
END = "EOF"

SPACE = "[ \\t\\r\\n]"
_SPACES = frozenset(" \t\r\n")


@dataclass(slots=True)
class Cursor:
    """A place in `text`; every method that takes something moves it, and leaves it where it was if there is nothing."""

    text: str
    position: int = 0
    depth: int = 0
    _farthest: int = 0
    _expected: set[str] = field(default_factory=set[str])
    _mistakes: dict[str, None] = field(default_factory=dict[str, None])
    _known: dict[tuple[str, int], tuple[object, int]] = field(default_factory=dict[tuple[str, int], tuple[object, int]])

    def once(self, rule: str, parse: Callable[[], T | None]) -> T | None:
        """What `parse` finds here; each rule looks at each place once, which makes parsing linear."""
        start = self.position
        known = self._known.get((rule, start))
        if known is None:
            found = parse()
            self._known[rule, start] = (found, self.position)
            return found
        self.position = known[1]
        return known[0]  # pyright: ignore[reportReturnType] - a rule's name stands for one type

    def take(self, literal: str) -> bool:
        """Take these very letters."""
        if self.text.startswith(literal, self.position):
            self.position += len(literal)
            return True
        self.expect(quote(literal))
        return False

    def take_one(self, letters: frozenset[str], pattern: str) -> bool:
        """Take one of `letters`, which a refusal calls `pattern`."""
        if self.position < len(self.text) and self.text[self.position] in letters:
            self.position += 1
            return True
        self.expect(pattern)
        return False

    def take_many(self, letters: frozenset[str], pattern: str) -> bool:
        """Take as many of `letters` as there are."""
        start = self.position
        while self.take_one(letters, pattern):
            pass
        return self.position > start

    def take_spaces(self) -> bool:
        """Take white space."""
        return self.take_many(_SPACES, SPACE)

    def at_end(self) -> bool:
        """Whether nothing is left."""
        if self.position == len(self.text):
            return True
        self.expect(END)
        return False

    def expect(self, what: str) -> None:
        """Note that `what` could have been here."""
        if self.position > self._farthest:
            self._farthest = self.position
            self._expected.clear()
        if self.position == self._farthest:
            self._expected.add(what)

    def mistake(self, rule: str, reason: str, at: int | None = None) -> None:
        """Note a mistake that is known by name; the text is refused then, whatever else it may be."""
        self._mistakes[f'{self._place(self.position if at is None else at)}: rule "{rule}": {reason}'] = None

    @property
    def mistaken(self) -> bool:
        """Whether there were any."""
        return bool(self._mistakes)

    def explain(self) -> str:
        """What is wrong with the text."""
        if self._mistakes:
            return "\n".join(self._mistakes)
        wanted = sorted(self._expected - {END}, key=str.encode) + [END] * (END in self._expected)
        listed = " or ".join(filter(None, [", ".join(wanted[:-1]), *wanted[-1:]]))
        return f"{self._place(self._farthest)}: no match found, expected: {listed}"

    def _place(self, position: int) -> str:
        """Line, column in letters and offset in bytes; a line break belongs to the line that it opens, at column 0."""
        before = self.text[:position]
        offset = len(before.encode(errors="surrogatepass"))
        shown = self.text[: position + 1]
        line = 1 + shown.count("\n")
        column = position + 1 if line == 1 else position - shown.rindex("\n")
        return f"{line}:{column} ({offset})"
