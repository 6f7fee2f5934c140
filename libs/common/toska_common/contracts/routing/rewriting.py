"""Other places: what a request asks for is rewritten for the upstream, or the client is sent there."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import Path
from toska_common.path_templates import PathTemplate as Template
from toska_common.regexes import Regex, Replacement

_NOT_IN_A_PATH = re.compile(r"[\x00-\x20\x7f?#%]")
_REFERENCE_IN_AUTHORITY = re.compile(r"https?://[^/?#]*\\")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


def _regex(value: str) -> str:
    prefix = Regex(value).prefix
    if prefix and not prefix.startswith(b"/"):
        raise ValueError("no path fits it: paths start with /, and the whole path has to fit")
    return value


def _authority(value: str) -> str:
    match = _AUTHORITY.fullmatch(value)
    if match is None or (match[1] is not None and not 0 < int(match[1]) <= 65535):
        raise ValueError("a name or an address, with a port perhaps, such as shop.example or shop.example:8443")
    return value


def _path_template(value: str) -> str:
    if not value.startswith(("/", "\\")):
        raise ValueError("what takes a path's place starts with /, or with what was captured")
    if _NOT_IN_A_PATH.search(value):
        raise ValueError("write the decoded path, with \\1 for what the first group captured: no ?, #, % or spaces")
    return value


def _check_references(field: str, text: str, regex: str, template: str | None = None) -> None:
    try:
        if template is not None:
            read = Template(template)
            text, regex = read.references(text), read.regex
        Replacement(text, Regex(regex))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _refers_to_authority(to: str, template: str | None) -> bool:
    return _REFERENCE_IN_AUTHORITY.match(to if template is None else Template(template).references(to)) is not None


PathRegex = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_regex)]
"""A regular expression of RE2 that the whole decoded path has to fit."""
Authority = Annotated[str, StringConstraints(max_length=261), AfterValidator(_authority)]
PathTemplate = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_path_template)]


class Rewrite(Document):
    r"""What the upstream is asked for instead.

    `prefix` takes the place of `match.path_prefix`. `replacement` takes the place of a path that fits `regex`, or
    `match.path_regex` if there is no `regex` here; `\1` in it is what the first group captured, and on a route with
    `match.path_template` `{id}` what the variable stands for. A path that does not fit stays as it is.
    """

    prefix: Path | None = None
    regex: PathRegex | None = None
    replacement: PathTemplate | None = None
    host: Authority | None = Field(default=None, description="Host; X-Forwarded-Host still says what the client asked")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.prefix is None and self.replacement is None and self.host is None:
            raise ValueError("regex needs replacement" if self.regex else "give prefix, replacement or host")
        if self.prefix is not None and self.replacement is not None:
            raise ValueError("give either prefix or replacement")
        if self.regex is not None:
            if self.replacement is None:
                raise ValueError("regex needs replacement")
            _check_references("replacement", self.replacement, self.regex)
        return self

    def check_against(self, path_prefix: str | None, path_regex: str | None, path_template: str | None) -> None:
        """Raise `ValueError` if this cannot be done to what the match takes."""
        if self.prefix is not None and path_prefix is None:
            raise ValueError("policies.rewrite: prefix needs match.path_prefix, whose place it takes")
        if self.replacement is not None and self.regex is None:
            if path_regex is None and path_template is None:
                raise ValueError("policies.rewrite: replacement needs regex, match.path_regex or match.path_template")
            _check_references("policies.rewrite.replacement", self.replacement, path_regex or "", path_template)


class Redirect(Document):
    r"""Answer with another place: a path or an absolute URL, or the same one with another prefix, scheme or host.

    On a route with `match.path_regex`, `\1` in the path or the query of `to` is what the first group captured; on one
    with `match.path_template`, `{id}` is what the variable stands for.
    """

    to: str | None = Field(default=None, pattern=r"^(/|https?://)[\x21-\x7e]*$", max_length=2048)
    prefix: Path | None = Field(default=None, description="Takes the place of match.path_prefix; the rest stays")
    scheme: Literal["http", "https"] | None = None
    host: Authority | None = None
    keep_query: bool = Field(default=True, description="The query travels along")
    status: Literal[301, 302, 303, 307, 308] = 308

    @field_validator("to")
    @classmethod
    def _names_a_host(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            parts = urlsplit(value)
            _ = parts.port  # raises, if it is none
            if not parts.hostname:
                raise ValueError("names no host")
        return value

    @model_validator(mode="after")
    def _some_place(self) -> Self:
        if self.to is None and self.prefix is None and self.scheme is None and self.host is None:
            raise ValueError("give to, prefix, scheme or host")
        if self.to is not None and (self.prefix, self.scheme, self.host) != (None, None, None):
            raise ValueError("to says it all: leave prefix, scheme and host out")
        return self

    def check_against(self, path_prefix: str | None, path_regex: str | None, path_template: str | None) -> None:
        """Raise `ValueError` if this cannot be done with what the match takes."""
        if self.prefix is not None and path_prefix is None:
            raise ValueError("redirect: prefix needs match.path_prefix, whose place it takes")
        if self.to is not None and (path_regex is not None or path_template is not None):
            _check_references("redirect.to", self.to, path_regex or "", path_template)
            if _refers_to_authority(self.to, path_template):
                raise ValueError("redirect: a host is not made of what a client sent; refer to groups after it")
