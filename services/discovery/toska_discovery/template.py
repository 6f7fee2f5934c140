"""Templates of prepared queries: `${name.full}`, `${name.prefix}`, `${name.suffix}`, `${match(N)}`, `${agent.segment}`.

`match(N)` is the N-th group of the template's regular expression in the name, 0 for all of it, and empty if there is
none. `$${` writes `${`. These are all the variables and the function that Consul has; the arithmetic of its language is
not there.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from toska_discovery.errors import QueryRefused
from toska_discovery.filters.problems import InvalidFilter
from toska_discovery.filters.regexes import compile_groups

NAME_PREFIX_MATCH = "name_prefix_match"
"""The one kind of template."""
_PART = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_MATCH = re.compile(r"match\(\s*(-?\d+)\s*\)")
_REGEX = "error parsing regexp"


@dataclass(frozen=True, slots=True)
class Template:
    """What makes one query out of many names; whatever it is, it compiles.

    Attributes:
        regexp: Applied to the whole name; empty for none.
        remove_empty_tags: Whether tags that come out empty are dropped.
    """

    regexp: str = ""
    remove_empty_tags: bool = False

    def filler(self, prefix: str, name: str) -> Callable[[str], str]:
        """What fills in texts for `name`, which starts with the template's own name, `prefix`."""
        groups = _groups(self.regexp, name)
        variables = {
            "name.full": name,
            "name.prefix": prefix,
            "name.suffix": name[len(prefix) :],
            "agent.segment": "",
        }

        def value(expression: str) -> str:
            found = _MATCH.fullmatch(expression)
            if found is None:
                return variables[expression]
            number = int(found[1])
            return groups[number] if 0 <= number < len(groups) else ""

        return lambda text: _PART.sub(lambda part: "${" if part[1] is None else value(part[1].strip()), text)


def check_template(kind: str, template: Template, texts: dict[str, str]) -> None:
    """See that a template can be filled in for every name; `texts` are those with expressions in them, by field.

    Raises:
        QueryRefused: In Consul's words.
    """
    if kind != NAME_PREFIX_MATCH:
        raise QueryRefused(f"failed compiling template: Bad Template.Type '{kind}'")
    try:
        _groups(template.regexp, "")
    except InvalidFilter as error:
        reason = str(error).partition(_REGEX)[2]
        raise QueryRefused(f"failed compiling template: Bad Regexp: {_REGEX}{reason}") from error
    for field, text in texts.items():
        for part in _PART.finditer(text):
            if part[0] == "${":
                problem = "parse error: syntax error"
                raise QueryRefused(f"failed compiling template: Bad format '{text}' in {field}: {problem}")
            if part[1] is not None:
                _check_expression(part[1].strip(), f"'{text}' in {field}", part.start() + 3)


def _check_expression(expression: str, where: str, column: int) -> None:
    known = {"name.full", "name.prefix", "name.suffix", "agent.segment"}
    if expression in known or _MATCH.fullmatch(expression):
        return
    if re.fullmatch(r"[A-Za-z_][\w.]*", expression):
        problem = f"1:{column}: unknown variable accessed: {expression}"
        raise QueryRefused(f"failed compiling template: Bad evaluation for {where}: {problem}")
    raise QueryRefused(f"failed compiling template: Bad format {where}: parse error: syntax error")


def _groups(regexp: str, name: str) -> tuple[str, ...]:
    return compile_groups(regexp)(name) if regexp else ()
