"""Random `filter` expressions: their text, and what they mean, worked out in the plainest way there is."""

import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Meaning = Callable[[dict[str, Any]], bool]
Case = tuple[str, Meaning]

VALUES = ("", "a", "b", "ab", "web-1", "é", 'say "x"', "1")
PATTERNS = ("a", "^a", "b$", "^$", "[ab]+", "web-\\d")


def quoted(text: str) -> str:
    """`text` as a literal."""
    return f"`{text}`" if '"' in text or "\\" in text else f'"{text}"'


def _texts(selector: str, find: Callable[[dict[str, Any]], list[str]]) -> st.SearchStrategy[Case]:
    """Questions about a string; `find` gives it in a list, which is empty where there is none."""

    def ask(operator: str, value: str) -> Case:
        literal = quoted(value)
        asked: dict[str, Case] = {
            "==": (f"{selector} == {literal}", lambda d: any(found == value for found in find(d))),
            "!=": (f"{selector} != {literal}", lambda d: not any(found == value for found in find(d))),
            "in": (f"{literal} in {selector}", lambda d: any(value in found for found in find(d))),
            "not in": (f"{literal} not in {selector}", lambda d: not any(value in found for found in find(d))),
            "contains": (f"{selector} contains {literal}", lambda d: any(value in found for found in find(d))),
            "not contains": (
                f"{selector} not contains {literal}",
                lambda d: not any(value in found for found in find(d)),
            ),
        }
        return asked[operator]

    def match(pattern: str, negated: bool) -> Case:
        text = f"{selector} {'not ' * negated}matches {quoted(pattern)}"
        return text, lambda d: any(re.search(pattern, found) for found in find(d)) != negated

    operators = st.sampled_from(("==", "!=", "in", "not in", "contains", "not contains"))
    return st.builds(ask, operators, st.sampled_from(VALUES)) | st.builds(
        match, st.sampled_from(PATTERNS), st.booleans()
    )


def _ports() -> st.SearchStrategy[Case]:
    def ask(value: int, quotes: bool, negated: bool) -> Case:
        literal = f'"{value}"' if quotes else str(value)
        return f"Port{'!=' if negated else '=='}{literal}", lambda d: (d["Port"] == value) != negated

    return st.builds(ask, st.sampled_from((0, 80, 8080, -1)), st.booleans(), st.booleans())


def _flags() -> st.SearchStrategy[Case]:
    def ask(word: str) -> Case:
        wanted = word in {"true", "t", "1"}
        return f"EnableTagOverride == {word}", lambda d: bool(d["EnableTagOverride"]) is wanted

    return st.builds(ask, st.sampled_from(("true", "false", "t", "F", "1", "0")))


def _containers() -> st.SearchStrategy[Case]:
    def empty(name: str, negated: bool) -> Case:
        return f"{name} is {'not ' * negated}empty", lambda d: bool(d[name]) == negated

    def has(name: str, value: str, negated: bool) -> Case:
        return f"{quoted(value)} {'not ' * negated}in {name}", lambda d: (value in d[name]) != negated

    names = st.sampled_from(("Tags", "Meta"))
    return st.builds(empty, names, st.booleans()) | st.builds(has, names, st.sampled_from(VALUES), st.booleans())


def _all_of(left: Case, right: Case) -> Case:
    return f"({left[0]}) and ({right[0]})", lambda d: left[1](d) and right[1](d)


def _any_of(left: Case, right: Case) -> Case:
    return f"({left[0]}) or ({right[0]})", lambda d: left[1](d) or right[1](d)


def _opposite(inner: Case) -> Case:
    return f"not ({inner[0]})", lambda d: not inner[1](d)


def _unbracketed(first: Case, second: Case, third: Case) -> Case:
    text = f"not {first[0]} or {second[0]} and {third[0]}"
    return text, lambda d: (not first[1](d)) or (second[1](d) and third[1](d))


QUESTIONS: st.SearchStrategy[Case] = st.one_of(
    _texts("Service", lambda d: [d["Service"]]),
    _texts("ID", lambda d: [d["ID"]]),
    _texts("Meta.env", lambda d: [d["Meta"]["env"]] if "env" in d["Meta"] else []),
    _texts('Meta["env"]', lambda d: [d["Meta"]["env"]] if "env" in d["Meta"] else []),
    _ports(),
    _flags(),
    _containers(),
)
"""One question about an instance in the form of `agent/services`."""

EXPRESSIONS: st.SearchStrategy[Case] = st.recursive(
    QUESTIONS | st.builds(_unbracketed, QUESTIONS, QUESTIONS, QUESTIONS),
    lambda inner: st.builds(_all_of, inner, inner) | st.builds(_any_of, inner, inner) | st.builds(_opposite, inner),
    max_leaves=8,
)
"""Expressions of several questions."""

SERVICES = st.fixed_dictionaries(
    {
        "ID": st.sampled_from(VALUES),
        "Service": st.sampled_from(VALUES),
        "Tags": st.lists(st.sampled_from(VALUES), max_size=3),
        "Meta": st.dictionaries(st.sampled_from(("env", "a", "1")), st.sampled_from(VALUES)),
        "Port": st.sampled_from((0, 80, 8080)),
        "EnableTagOverride": st.booleans(),
    }
)
"""Instances to ask about."""

_WORDS = (
    "not",
    "and",
    "or",
    "in",
    "is",
    "empty",
    "contains",
    "matches",
    "==",
    "!=",
    "(",
    ")",
    ".",
    "[",
    "]",
    " ",
    "\n",
)
_PIECES = (
    *_WORDS,
    "ID",
    "Meta.env",
    "Tags",
    "Bogus",
    '"a"',
    "`b`",
    '"',
    "`",
    "é",
    "1",
    "-",
    "0.5",
    "01",
    '"\\q"',
    "\t",
)
GARBAGE = st.lists(st.sampled_from(_PIECES), max_size=12).map(" ".join) | st.lists(
    st.sampled_from(_PIECES), max_size=12
).map("".join)
"""What is made of an expression's words without being one, mostly."""
