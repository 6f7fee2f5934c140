"""What headers, cookies and query parameters have to be, in Envoy's words."""

import re
from collections.abc import Iterator
from typing import Final

from toska_common.contracts.routing.matching import Conditions, ValueMatch
from toska_common.envoy.words import Json

_SEPARATED: Final = r"(?:.*;\s*)?"


def conditions(wanted: Conditions) -> Iterator[Json]:
    """Matchers of headers and cookies; `parameters` has those of the query."""
    for name, value in wanted.headers.items():
        yield {"name": name, **_header(value)}
    for name, value in wanted.cookies.items():
        yield _cookie(name, value)


def parameters(wanted: Conditions) -> list[Json]:
    """Matchers of query parameters."""
    return [{"name": name, **_parameter(value)} for name, value in wanted.query.items()]


def _string(value: ValueMatch) -> Json:
    if value.exact is not None:
        return {"exact": value.exact}
    for kind in ("prefix", "suffix", "contains"):
        text = getattr(value, kind)
        if text is not None:
            return {kind: text}
    return {"safe_regex": {"regex": value.regex}}


def _header(value: ValueMatch) -> Json:
    if value.present is not None:
        return {"present_match": value.present}
    matcher: Json = {"string_match": _string(value)}
    # (a field that is not there counts as one that does not fit)
    return {**matcher, "invert_match": True, "treat_missing_header_as_empty": True} if value.invert else matcher


def _parameter(value: ValueMatch) -> Json:
    if value.present is not None:
        return {"present_match": value.present}
    return {"string_match": _string(value)}


def _cookie(name: str, value: ValueMatch) -> Json:
    """Envoy has no words for a cookie: it is a part of the field."""
    whole = rf"{_SEPARATED}{re.escape(name)}={_cookie_value(value)}\s*(?:;.*)?"
    matcher: Json = {"name": "cookie", "string_match": {"safe_regex": {"regex": whole}}}
    if value.invert or value.present is False:
        return {**matcher, "invert_match": True, "treat_missing_header_as_empty": True}
    return matcher


def _cookie_value(value: ValueMatch) -> str:
    if value.present is not None:
        return "[^;]*"
    if value.regex is not None:
        return f"(?:{value.regex})"
    if value.exact is not None:
        return re.escape(value.exact)
    if value.prefix is not None:
        return re.escape(value.prefix) + "[^;]*"
    if value.suffix is not None:
        return "[^;]*" + re.escape(value.suffix)
    return "[^;]*" + re.escape(value.contains or "") + "[^;]*"
