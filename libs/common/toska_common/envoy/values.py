"""What headers, cookies and query parameters have to be, in Envoy's words."""

import re
from collections.abc import Iterator
from typing import Final

from toska_common.contracts.routing.matching import Conditions, ValueMatch
from toska_common.envoy.words import Json, fitting

_SPECIAL: Final = "&+%#"
"""What does not stand for itself in a query."""
_SEPARATED: Final = r"(?:.*;\s*)?"


def conditions(wanted: Conditions) -> Iterator[Json]:
    """Matchers of headers and cookies; `parameters` has those of the query."""
    for name, value in wanted.headers.items():
        yield {"name": name, **_header(value)}
    for name, value in wanted.cookies.items():
        yield _cookie(name, value)
    for name, value in wanted.query.items():
        if value.regex is None:
            yield _in_target(name, value)


def parameters(wanted: Conditions) -> list[Json]:
    """Matchers of query parameters whose values have to fit an expression: Envoy takes the first, as it is sent."""
    return [
        {"name": name, "string_match": _string(value)}
        for name, value in wanted.query.items()
        if value.regex is not None
    ]


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


def _in_target(name: str, value: ValueMatch) -> Json:
    """A parameter, wherever it stands among others of its name, and however it is escaped: a part of the target."""
    some = f"(?:={_parameter_value(value)})" + ("?" if _may_be_empty(value) else "")
    whole = rf"[^?]*\?(?:.*&)?{_escaped(name)}{some}(?:&.*)?"
    return fitting(":path", whole, invert=value.invert or value.present is False)


def _parameter_value(value: ValueMatch) -> str:
    if value.exact is not None:
        return _escaped(value.exact)
    if value.prefix is not None:
        return _escaped(value.prefix) + "[^&]*"
    if value.suffix is not None:
        return "[^&]*" + _escaped(value.suffix)
    if value.contains is not None:
        return "[^&]*" + _escaped(value.contains) + "[^&]*"
    return "[^&]*"


def _may_be_empty(value: ValueMatch) -> bool:
    return value.present is not None or "" in (value.exact, value.prefix, value.suffix, value.contains)


def _escaped(text: str) -> str:
    """An expression for a text of which any byte may be percent-encoded, and a space a plus."""
    return "".join(_escaped_byte(byte) for byte in text.encode())


def _escaped_byte(byte: int) -> str:
    digits = "".join(f"[{digit}{digit.lower()}]" if digit.isalpha() else digit for digit in f"{byte:02X}")
    plain = "[+]" if byte == 0x20 else re.escape(chr(byte)) if 0x20 < byte < 0x7F and chr(byte) not in _SPECIAL else ""
    return f"(?:{plain}|%{digits})" if plain else f"%{digits}"


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
