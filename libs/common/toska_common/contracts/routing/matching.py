"""Which requests are meant: by host, path, method, and by what headers, cookies, query and the client's address say."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from toska_common.contracts import Document
from toska_common.contracts.routing.rewriting import PathRegex
from toska_common.contracts.routing.server import TrustedPeer
from toska_common.contracts.routing.words import (
    HEADER_VALUE,
    CookieName,
    ExactPath,
    HeaderName,
    MatchHost,
    Method,
    Path,
    TemplatePath,
)
from toska_common.regexes import Regex


def _regex(value: str) -> str:
    Regex(value)  # raises, and says why
    return value


Text = Annotated[str, StringConstraints(min_length=1, max_length=8192)]
ValueRegex = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_regex)]
"""A regular expression of RE2 that a whole value has to fit."""


class ValueMatch(Document):
    """What a value has to be: one of these. A plain string stands for `exact`.

    With `invert` it is the other way round: whatever does not fit is meant, and what is not there does not fit.
    """

    exact: str | None = Field(default=None, max_length=8192)
    prefix: Text | None = None
    suffix: Text | None = None
    contains: Text | None = None
    regex: ValueRegex | None = Field(default=None, description="An expression of RE2 that the whole value has to fit")
    present: bool | None = Field(default=None, description="true: it is there, whatever it says; false: it is not")
    invert: bool = Field(default=False, description="The other way round; a value that is not there is meant then")

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        given = sum(value is not None for value in (*self.texts, self.regex, self.present))
        if given != 1:
            raise ValueError("give one of exact, prefix, suffix, contains, regex and present")
        if self.present is not None and self.invert:
            raise ValueError(f"write present: {str(not self.present).lower()} instead of invert")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> str | dict[str, Any]:
        return self.exact if self.exact is not None and not self.invert else handler(self)

    @property
    def texts(self) -> tuple[str | None, ...]:
        """What is compared letter by letter."""
        return self.exact, self.prefix, self.suffix, self.contains


def _plain_is_exact(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError(f"is a string: write it in quotes, as {str(value).lower()!r}")
    return {"exact": value} if isinstance(value, str) else value


def _of_a_header(value: ValueMatch) -> ValueMatch:
    if any(text is not None and re.fullmatch(HEADER_VALUE, text) is None for text in value.texts):
        raise ValueError("no header has such a value: it is Latin-1 without control characters and outer spaces")
    return value


_WRITTEN = BeforeValidator(_plain_is_exact, json_schema_input_type=str | ValueMatch)
AnyValue = Annotated[ValueMatch, _WRITTEN]
HeaderMatch = Annotated[ValueMatch, _WRITTEN, AfterValidator(_of_a_header)]


class Conditions(Document):
    """What a request says besides where it goes. All that is given must hold."""

    headers: Mapping[HeaderName, HeaderMatch] = Field(default_factory=dict[str, ValueMatch])
    cookies: Mapping[CookieName, AnyValue] = Field(default_factory=dict[str, ValueMatch])
    query: Mapping[str, AnyValue] = Field(
        default_factory=dict[str, ValueMatch], description="Parameters, decoded; of several of a name one has to fit"
    )
    client_ip: tuple[TrustedPeer, ...] = Field(
        default=(),
        max_length=1000,
        description="Any of these networks, as CIDR, or unix:; behind server.trusted_proxies the client's own address",
    )

    @property
    def values(self) -> tuple[ValueMatch, ...]:
        """Of headers, cookies and query."""
        return (*self.headers.values(), *self.cookies.values(), *self.query.values())


class _Place(Document):
    """Where a request goes to."""

    host: MatchHost | None = None
    path: ExactPath | None = Field(
        default=None, description="Exactly this path; * takes an OPTIONS of the server as a whole (RFC 9112 §3.2.4)"
    )
    path_prefix: Path | None = Field(
        default=None, description="By segment: /orders takes /orders and /orders/1, not /ordersx"
    )
    path_template: TemplatePath | None = Field(
        default=None, description="With variables: /users/{id} takes any one segment there, {rest=**} all that is left"
    )
    path_regex: PathRegex | None = Field(
        default=None, description="A regular expression of RE2 that the whole decoded path has to fit"
    )
    except_prefixes: tuple[Path, ...] = Field(default=(), description="Paths below that the route does not take")
    methods: tuple[Method, ...] = ()


class Match(Conditions, _Place):
    """Which requests a route takes. All that is given must hold; a longer, more exact match goes first."""

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if sum(path is not None for path in (self.path, self.path_prefix, self.path_template, self.path_regex)) != 1:
            raise ValueError("give one of path, path_prefix, path_template and path_regex")
        return self
