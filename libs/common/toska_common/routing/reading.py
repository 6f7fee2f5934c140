"""Reading a delta from JSON piece by piece, for a thread beside an event loop that must not stand still.

The interpreter is held for as long as one call into pydantic takes: a second for 10,000 routes with 100,000 endpoints.
A thread that reads each route and each cluster by itself lets others have their turn in between.
"""

import re
from collections.abc import Callable, Iterator
from json import JSONDecodeError, JSONDecoder, dumps
from typing import Any, Final, TypeVar

from toska_common.contracts.routing import Cluster, EndpointsDelta, PlacedRoute, SnapshotDelta, TableDelta

SMALL: Final = 1 << 16
"""Bytes that are read at once: in a millisecond or two."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = JSONDecoder()
T = TypeVar("T")


def read_delta(body: bytes) -> SnapshotDelta:
    """The same as `SnapshotDelta.model_validate_json`.

    Raises:
        ValueError: It is no JSON, or not a delta; as of pydantic, whose errors are a kind of it.
    """
    if len(body) <= SMALL:
        return SnapshotDelta.model_validate_json(body)
    try:
        return _Pieces(body.decode()).delta()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class _Pieces:
    """A delta's text, and how far it was read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def delta(self) -> SnapshotDelta:
        rest: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for key in self._keys():
            if key == "endpoints":
                found[key] = {name: self._piece(EndpointsDelta.model_validate_json) for name in self._keys()}
            elif key == "table" and self._peek() == "{":
                found[key] = self._table()
            else:
                rest[key] = self._value()
        self._require_end()
        delta = SnapshotDelta.model_validate_json(dumps(rest))
        return delta.model_copy(update=found)

    def _table(self) -> TableDelta:
        rest: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for key in self._keys():
            if key == "clusters":
                found[key] = {name: self._piece(Cluster.model_validate_json) for name in self._keys()}
            elif key == "routes":
                found[key] = tuple(self._elements(PlacedRoute.model_validate_json))
            else:
                rest[key] = self._value()
        return TableDelta.model_validate_json(dumps(rest)).model_copy(update=found)

    def _keys(self) -> Iterator[str]:
        """The keys of the object that begins here; whoever asks reads the value of each before the next."""
        self._expect("{")
        if self._peek() == "}":
            self._expect("}")
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise JSONDecodeError("a key is expected", self._text, self._at)
            self._expect(":")
            yield key
            if self._peek() == "}":
                self._expect("}")
                return
            self._expect(",")

    def _elements(self, read: Callable[[str], T]) -> Iterator[T]:
        """The elements of the array that begins here."""
        self._expect("[")
        if self._peek() == "]":
            self._expect("]")
            return
        while True:
            yield self._piece(read)
            if self._peek() == "]":
                self._expect("]")
                return
            self._expect(",")

    def _piece(self, read: Callable[[str], T]) -> T:
        """The value here, as `read` understands it."""
        self._peek()
        start = self._at
        self._value()
        return read(self._text[start : self._at])

    def _value(self) -> Any:
        self._peek()
        value, self._at = _DECODER.raw_decode(self._text, self._at)
        return value

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        space = _SPACE.match(self._text, self._at)
        if space is not None:
            self._at = space.end()
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise JSONDecodeError(f"{character} is expected", self._text, self._at)
        self._at += 1

    def _require_end(self) -> None:
        if self._peek():
            raise JSONDecodeError("something comes after the end", self._text, self._at)
