"""The grammar of `filter` expressions, by recursive descent.

    input    = [_] "(" [_] or [_] ")" [_] end  /  [_] or [_] end
    or       = and (_ "or" _ and)*
    and      = not (_ "and" _ not)*
    not      = ("not" _)* group
    group    = "(" [_] or [_] ")"  /  match
    match    = selector ([_] ("==" / "!=") [_] / _ ["not" _] ("contains" / "matches") _) value
             / selector _ "is" _ ["not" _] "empty"
             / value _ ["not" _] "in" _ selector
    selector = name ("." name / "[" [_] string [_] "]")*
    value    = selector / number / string

The first alternative that fits is taken, with `_` for white space. So `not` is also a name where nothing else fits.
"""

import string
from collections.abc import Callable

from toska_discovery.filters.expressions import And, Expression, Match, Not, Operator, Or
from toska_discovery.filters.gotext import unquote
from toska_discovery.filters.peg import Cursor
from toska_discovery.filters.problems import InvalidFilter

MAX_LENGTH = 8192
MAX_DEPTH = 50
"""How long an expression may be, and how deep its parentheses may be nested."""

_LETTERS = frozenset(string.ascii_letters)
_NAME = frozenset(string.ascii_letters + string.digits + "_")
_DIGITS = frozenset(string.digits)
_FROM_ONE = _DIGITS - {"0"}


def parse(text: str) -> Expression:
    """Parse an expression.

    Raises:
        InvalidFilter: It is none; says where it went wrong.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidFilter(f"Expression is longer than {MAX_LENGTH} characters")
    return _Parser(text).parse()


class _Parser:
    """The rules, each a method that finds what it is named after at the cursor, or `None`."""

    def __init__(self, text: str) -> None:
        self._at = Cursor(text)

    def parse(self) -> Expression:
        at = self._at
        found = self._input()
        if found is None or at.mistaken:
            raise InvalidFilter(at.explain())
        return found

    def _input(self) -> Expression | None:
        at = self._at
        for rule in (self._parenthesised, self._or):
            at.position = 0
            at.take_spaces()
            found = rule()
            if found is not None:
                at.take_spaces()
                if at.at_end():
                    return found
        return None

    def _or(self) -> Expression | None:
        return self._at.once("or", lambda: self._chain("or", self._and, Or))

    def _and(self) -> Expression | None:
        return self._at.once("and", lambda: self._chain("and", self._not, And))

    def _chain(
        self,
        word: str,
        rule: Callable[[], Expression | None],
        build: Callable[[tuple[Expression, ...]], Expression],
    ) -> Expression | None:
        at = self._at
        first = rule()
        if first is None:
            return None
        parts = [first]
        while True:
            start = at.position
            following = rule() if at.take_spaces() and at.take(word) and at.take_spaces() else None
            if following is None:
                at.position = start
                return parts[0] if len(parts) == 1 else build(tuple(parts))
            parts.append(following)

    def _not(self) -> Expression | None:
        return self._at.once("not", self._negations)

    def _negations(self) -> Expression | None:
        at = self._at
        starts = [at.position]
        while at.take("not") and at.take_spaces():
            starts.append(at.position)
        for count in range(len(starts) - 1, -1, -1):
            # What looked like `not` may be a name: `not in Service.Tags`.
            at.position = starts[count]
            found = self._group()
            if found is not None:
                return Not(found) if count % 2 else found
        at.position = starts[0]
        return None

    def _group(self) -> Expression | None:
        return self._at.once("group", lambda: self._parenthesised() or self._match() or self._unclosed())

    def _parenthesised(self) -> Expression | None:
        at = self._at
        start = at.position
        found = self._inside()
        if found is not None and at.take(")"):
            return found
        at.position = start
        return None

    def _unclosed(self) -> None:
        at = self._at
        start = at.position
        if self._inside() is not None:
            at.mistake("grouping", "Unmatched parentheses")
        at.position = start

    def _inside(self) -> Expression | None:
        """An opening parenthesis and what follows, up to the closing one."""
        at = self._at
        if not at.take("("):
            return None
        at.depth += 1
        if at.depth > MAX_DEPTH:
            raise InvalidFilter(f"Expression is nested deeper than {MAX_DEPTH} parentheses")
        at.take_spaces()
        found = self._or()
        at.depth -= 1
        at.take_spaces()
        return found

    def _match(self) -> Match | None:
        at = self._at
        start = at.position
        for rule in (self._selector_operator_value, self._selector_operator, self._value_operator_selector):
            at.position = start
            found = rule()
            if found is not None:
                return found
        at.position = start
        return None

    def _selector_operator_value(self) -> Match | None:
        selector = self._selector()
        operator = self._comparison() if selector is not None else None
        value = self._value() if operator is not None else None
        return None if selector is None or operator is None or value is None else Match(selector, operator, value)

    def _comparison(self) -> Operator | None:
        at = self._at
        for symbol, operator in (("==", Operator.EQUAL), ("!=", Operator.NOT_EQUAL)):
            start = at.position
            at.take_spaces()
            if at.take(symbol):
                at.take_spaces()
                return operator
            at.position = start
        for words, operator in (
            (("contains",), Operator.IN),
            (("not", "contains"), Operator.NOT_IN),
            (("matches",), Operator.MATCHES),
            (("not", "matches"), Operator.NOT_MATCHES),
        ):
            if self._words(*words) and at.take_spaces():
                return operator
            at.position = start
        return None

    def _selector_operator(self) -> Match | None:
        selector = self._selector()
        if selector is None:
            return None
        start = self._at.position
        if self._words("is", "empty"):
            return Match(selector, Operator.IS_EMPTY, None)
        self._at.position = start
        return Match(selector, Operator.IS_NOT_EMPTY, None) if self._words("is", "not", "empty") else None

    def _value_operator_selector(self) -> Match | None:
        at = self._at
        value = self._value()
        operator = self._membership() if value is not None else None
        if operator is None:
            return None
        selector = self._selector()
        if selector is None:
            at.mistake("match", "Invalid selector")
            return None
        return Match(selector, operator, value)

    def _membership(self) -> Operator | None:
        at = self._at
        start = at.position
        if self._words("in") and at.take_spaces():
            return Operator.IN
        at.position = start
        return Operator.NOT_IN if self._words("not", "in") and at.take_spaces() else None

    def _words(self, *words: str) -> bool:
        """Each of `words` with white space before it."""
        return all(self._at.take_spaces() and self._at.take(word) for word in words)

    def _selector(self) -> tuple[str, ...] | None:
        return self._at.once("selector", self._path)

    def _path(self) -> tuple[str, ...] | None:
        name = self._name()
        if name is None:
            return None
        path = [name]
        while (part := self._dotted()) is not None or (part := self._index()) is not None:
            path.append(part)
        return tuple(path)

    def _dotted(self) -> str | None:
        at = self._at
        start = at.position
        name = self._name() if at.take(".") else None
        if name is None:
            at.position = start
        return name

    def _name(self) -> str | None:
        at = self._at
        start = at.position
        if not at.take_one(_LETTERS, "[a-zA-Z]"):
            return None
        at.take_many(_NAME, "[a-zA-Z0-9_]")
        return at.text[start : at.position]

    def _index(self) -> str | None:
        at = self._at
        start = at.position
        if not at.take("["):
            return None
        at.take_spaces()
        found = self._string()
        if found is None:
            at.mistake("index", "Invalid index")
        else:
            at.take_spaces()
            if at.take("]"):
                return found
            at.mistake("index", "Unclosed index expression")
        at.position = start
        return None

    def _value(self) -> str | None:
        selector = self._selector()
        if selector is not None:
            return ".".join(selector)
        found = self._at.once("number", self._number)
        return self._string() if found is None else found

    def _number(self) -> str | None:
        at = self._at
        start = at.position
        at.take("-")
        if not at.take("0"):
            if not at.take_one(_FROM_ONE, "[1-9]"):
                at.position = start
                return None
            at.take_many(_DIGITS, "[0-9]")
        whole = at.position
        if not (at.take(".") and at.take_many(_DIGITS, "[0-9]")):
            at.position = whole
        end = at.position
        # Consul looks at what follows; it stays where it is.
        if at.take_spaces() or at.at_end() or at.take(")"):
            at.position = end
            return at.text[start:end]
        at.mistake("number", "Invalid number literal")
        at.position = start
        return None

    def _string(self) -> str | None:
        return self._at.once("string", self._literal)

    def _literal(self) -> str | None:
        at = self._at
        start = at.position
        mark = next((mark for mark in ("`", '"') if at.take(mark)), None)
        if mark is None:
            return None
        end = at.text.find(mark, at.position)
        if end < 0:
            at.position = len(at.text)
            at.mistake("string", "Unterminated string literal")
            at.position = start
            return None
        inner, at.position = at.text[at.position : end], end + 1
        if mark == "`":
            return inner.replace("\r", "")
        try:
            return unquote(inner)
        except ValueError as error:
            at.mistake("string", str(error), at=start)
            return ""
