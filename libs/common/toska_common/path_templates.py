"""Paths with variables, such as `/users/{id}/orders`: what operators write where a segment may be anything.

`{id}` is one whole segment, and `{rest=**}`, at the end only, all that is left, slashes included and perhaps nothing.
A template is an expression of RE2 with named groups too, so whatever works with those (`regexes`) works with it; where
what was captured is put in elsewhere, `{id}` refers to it.
"""

import re
from typing import Final

_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(=\*\*)?\}")
_REFERENCE: Final = re.compile(r"\{([^{}/]*)\}")
_WORDS: Final = "a variable is a whole segment: {name}, or {name=**} at the end; for more there is path_regex"


class InvalidTemplate(ValueError):
    """The template, or what refers to its variables, cannot be used; says why."""


class PathTemplate:
    """A path with variables.

    Attributes:
        segments: Between the slashes, in UTF-8; `None` stands for a variable. That of the tail is not among them.
        tail: Whether the last variable takes all that is left.
        variables: Names, in order.
        regex: The expression of RE2 that the same paths fit, with a group for each variable.
        anonymous: The same with nothing for the variables' names: equal where two take the same paths.
        shape: Smaller goes first where two fit a path: for each segment 0 if it is written out, 1 if it is a variable,
            2 if it is the tail.
    """

    __slots__ = ("anonymous", "regex", "segments", "shape", "tail", "variables")

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            InvalidTemplate: It is none.
        """
        if not text.startswith("/"):
            raise InvalidTemplate("a path starts with /")
        found: list[bytes | None] = []
        names: list[str] = []
        pattern = ""
        self.tail = False
        for segment in text[1:].split("/"):
            if self.tail:
                raise InvalidTemplate("a variable of all that is left stands at the end")
            variable = _VARIABLE.fullmatch(segment)
            if variable is None:
                if "{" in segment or "}" in segment or "*" in segment:
                    raise InvalidTemplate(_WORDS)
                found.append(segment.encode())
                pattern += "/" + re.escape(segment)
                continue
            if variable[1] in names:
                raise InvalidTemplate(f"the variable {variable[1]} stands twice")
            names.append(variable[1])
            self.tail = variable[2] is not None
            if not self.tail:
                found.append(None)
            pattern += f"/(?P<{variable[1]}>{'.*' if self.tail else '[^/]+'})"
        if not names:
            raise InvalidTemplate("without a variable such as {id} it is a path: write path")
        self.segments = tuple(found)
        self.variables = tuple(names)
        self.regex = "(?s)" + pattern
        self.anonymous = _VARIABLE.sub(r"{\2}", text)
        self.shape = (*(0 if one is not None else 1 for one in found), *((2,) if self.tail else ()))

    def fits(self, path: bytes) -> bool:
        """Whether a path fits, without an expression: quick where it is asked once."""
        given = path.split(b"/")[1:]
        count = len(self.segments)
        if path[:1] != b"/" or (len(given) <= count if self.tail else len(given) != count):
            return False
        pairs = zip(self.segments, given, strict=False)
        return all(part != b"" if segment is None else part == segment for segment, part in pairs)

    def references(self, text: str) -> str:
        r"""What refers to variables by name, with references as `regexes.Replacement` has them: `\g<id>` for `{id}`.

        Raises:
            InvalidTemplate: There is no variable of that name.
        """

        def refer(reference: re.Match[str]) -> str:
            if reference[1] not in self.variables:
                known = ", ".join(f"{{{name}}}" for name in self.variables)
                raise InvalidTemplate(f"there is no {reference[0]} in path_template; known here: {known}")
            return rf"\g<{reference[1]}>"

        return _REFERENCE.sub(refer, text)
