"""Words that several parts of the routing contract share: names of fields, methods, paths, hosts."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, StringConstraints

from toska_common.path_templates import PathTemplate

HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$", to_lower=True)]
HEADER_VALUE = r"^[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$|^$"
HeaderValue = Annotated[str, StringConstraints(pattern=HEADER_VALUE, max_length=8192)]
CookieName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,20}$")]


def _as_word(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


NUMBER_AS_WORD = BeforeValidator(_as_word)
"""Where a status may stand: YAML reads 503 as a number, and nobody should have to know."""


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("a path starts with /")
    if re.search(r"[\x00-\x20\x7f?#%\\]|//|/\.{1,2}(/|$)", value):
        raise ValueError("write the decoded, normal form of the path: no %, ?, #, \\, //, /./ or /../")
    return value


def _exact_path(value: str) -> str:
    return value if value == "*" else _path(value)


Path = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_path)]
ExactPath = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_exact_path)]


def _template(value: str) -> str:
    PathTemplate(value)  # raises, and says why
    # What stands between the variables is held to what paths are.
    _path(re.sub(r"\{[^{}/]*\}", "x", value))
    return value


TemplatePath = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_template)]
"""A path with variables, as `toska_common.path_templates` reads it."""


def _match_host(value: str) -> str:
    name = value[2:] if value.startswith("*.") else value
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError("a host is lower-case, without a port; *.example.com stands for every name below it")
    return value


MatchHost = Annotated[str, AfterValidator(_match_host)]

FRAMING = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded",
        "x-forwarded-port", "x-forwarded-prefix", "x-real-ip", "x-request-id", "traceparent",
    }
)  # fmt: skip
"""Header fields that are the gateway's own: no rule changes them."""


def switched(value: object) -> object:
    """Settings that can be written as a switch: `true` is all defaults, `false` is to leave them out."""
    if value is True:
        return {}
    return None if value is False else value
