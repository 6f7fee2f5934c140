"""Pages of a sorted list: by number, or by a cursor that goes on after the last item seen.

A cursor holds the sort key and the name of that item, so what comes or goes between two requests neither repeats nor
skips anything else. It belongs to the question that it was given for. The total is the whole list's, on each page.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from toska_common.errors import InvalidInput

T = TypeVar("T")

MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `cursor` is empty on the last page."""

    items: list[T]
    total: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page is asked for.

    Attributes:
        limit: Items on a page.
        page: Its number from 1; 0 if a cursor is used.
        cursor: Of the page before; empty for the first.
        question: Everything else of the request that decides what is listed, filters and sort.
        cursor_field: What errors call the cursor.
    """

    limit: int = MAX_LIMIT
    page: int = 0
    cursor: str = ""
    question: str = ""
    cursor_field: str = "query.cursor"

    def cut(
        self, items: Sequence[T], key: Callable[[T], Any], name: Callable[[T], str], *, descending: bool = False
    ) -> Page[T]:
        """Sort `items` by `key`, equals by `name`, and take the page.

        Raises:
            InvalidInput: A cursor that was not made for this question, or one beside a page number.
        """
        if self.cursor and self.page:
            raise _invalid("query.page", "give a page or a cursor, not both")
        # Two stable sorts: names ascend also where keys descend.
        ordered = sorted(sorted(items, key=name), key=key, reverse=descending)
        begin = max(0, self.page - 1) * self.limit
        if self.cursor:
            begin = self._after(ordered, key, name, descending=descending)
        chosen = ordered[begin : begin + self.limit]
        more = begin + self.limit < len(ordered)
        cursor = self._encode(key(chosen[-1]), name(chosen[-1])) if more and chosen else ""
        return Page(chosen, len(ordered), cursor)

    def _after(
        self, ordered: Sequence[T], key: Callable[[T], Any], name: Callable[[T], str], *, descending: bool
    ) -> int:
        last_key, last_name = self._decode()
        try:
            for position, item in enumerate(ordered):
                found = key(item)
                if found == last_key:
                    passed = name(item) <= last_name
                else:
                    passed = found > last_key if descending else found < last_key
                if not passed:
                    return position
        except TypeError as error:
            raise _invalid(self.cursor_field, "not a cursor of this list") from error
        return len(ordered)

    def _encode(self, key: Any, name: str) -> str:
        text = json.dumps([self._stamp, key, name], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    def _decode(self) -> tuple[Any, str]:
        try:
            text = base64.urlsafe_b64decode(self.cursor + "=" * (-len(self.cursor) % 4))
            stamp, key, name = json.loads(text)
        except (ValueError, TypeError) as error:
            raise _invalid(self.cursor_field, "not a cursor that this list gave") from error
        if stamp != self._stamp or not isinstance(name, str):
            raise _invalid(self.cursor_field, "of another question: its filters or its sort were different")
        return key, name

    @property
    def _stamp(self) -> str:
        return hashlib.sha256(self.question.encode()).hexdigest()[:12]


def _invalid(field: str, reason: str) -> InvalidInput:
    return InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": reason}])
