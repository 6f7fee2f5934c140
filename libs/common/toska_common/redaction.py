"""What must not reach a log: tokens, passwords and credentials in URLs, whatever field or text they sit in."""

import re
from collections.abc import Mapping
from typing import Any, cast

MASK = "***"

_SECRET_FIELDS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-consul-token",
        "x-api-key",
        "token",
        "password",
        "secret",
        "api_key",
        "admin_token",
        "join_token",
    }
)

_SECRET_TEXT = re.compile(
    r"(toska_(?:admin|join|sagas)_)[A-Za-z0-9_-]{16,}"
    r"|(\bbearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|([?&](?:access_)?token=)[^&\s\"'\\]+"
    r"|(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)",
    re.IGNORECASE,
)


def redact_text(text: str) -> str:
    """Mask the secrets that can be told by their form: our tokens, bearer values, `?token=`, `scheme://user:password@`."""
    return _SECRET_TEXT.sub(_keep_prefix, text)


def redact_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Mask the values whose names say that they are secrets, at any depth."""
    return {key: MASK if _is_secret(key, value) else _redact_value(value) for key, value in fields.items()}


def _redact_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_fields(cast("Mapping[str, Any]", value))
    if isinstance(value, list | tuple):
        return [_redact_value(item) for item in cast("list[Any]", value)]
    return value


def _is_secret(key: str, value: Any) -> bool:
    return bool(value) and str(key).lower() in _SECRET_FIELDS


def _keep_prefix(match: re.Match[str]) -> str:
    prefix = match[1] or match[2] or match[3] or match[4] or ""
    return prefix + MASK
