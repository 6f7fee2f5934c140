"""The few forms that Envoy's configuration is made of, in protobuf's JSON."""

from datetime import timedelta
from typing import Any

Json = dict[str, Any]

TYPES = "type.googleapis.com/"
_EXTENSIONS = "envoy.extensions."


def typed(kind: str, **fields: Any) -> Json:
    """A message as an `Any`; `kind` is its full name, or begins after `envoy.extensions.` with a dot."""
    name = _EXTENSIONS + kind[1:] if kind.startswith(".") else kind
    return {"@type": TYPES + name, **fields}


def extension(name: str, kind: str, **fields: Any) -> Json:
    """A named extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def seconds(value: timedelta) -> str:
    """A duration."""
    return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"


def fraction(percent: float) -> Json:
    """A share of requests."""
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}


def literal(text: str) -> str:
    """Text where Envoy looks for `%COMMANDS%`."""
    return text.replace("%", "%%")


def header(name: str, value: str, *, action: str = "OVERWRITE_IF_EXISTS_OR_ADD", keep_empty: bool = False) -> Json:
    """A header field to add; `value` may have `%COMMANDS%`."""
    option: Json = {"header": {"key": name, "value": value}, "append_action": action}
    return {**option, "keep_empty_value": True} if keep_empty else option


def exactly(name: str, value: str, *, invert: bool = False) -> Json:
    """Matches a header that has exactly this value."""
    matcher: Json = {"name": name, "string_match": {"exact": value}}
    return {**matcher, "invert_match": True} if invert else matcher


def fitting(name: str, regex: str, *, invert: bool = False) -> Json:
    """Matches a header whose whole value fits an expression of RE2."""
    matcher: Json = {"name": name, "string_match": {"safe_regex": {"regex": regex}}}
    return {**matcher, "invert_match": True} if invert else matcher


def socket_address(host: str, port: int, *, protocol: str = "TCP") -> Json:
    """Where to listen or connect."""
    return {"socket_address": {"address": host, "port_value": port, "protocol": protocol}}


def pipe(path: str, mode: int | None = None) -> Json:
    """A Unix socket."""
    return {"pipe": {"path": path} if mode is None else {"path": path, "mode": mode}}
