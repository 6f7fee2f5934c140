"""Who asks for a change, as far as it is known: the credential that they showed, and what they say of themselves."""

from typing import Any

from fastapi import Request
from toska_common.credentials import Access
from toska_common.errors import InvalidInput

from toska_router.stored import Author

ACTOR, REASON = "X-Toska-Actor", "X-Toska-Reason"
_LONGEST = {ACTOR: 128, REASON: 1024}

HEADERS: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": description}
    for name, description in (
        (ACTOR, "Who makes the change, for the history; believed as it is said"),
        (REASON, "Why, for the history"),
    )
]


def read_author(request: Request, source: str = "api") -> Author:
    """Who asks for a change.

    Raises:
        InvalidInput: A header is too long, or holds what cannot be shown.
    """
    access = request.scope.get("state", {}).get("access")
    credential = access.value if isinstance(access, Access) else ""
    return Author(source, credential, actor=_read(request, ACTOR), reason=_read(request, REASON))


def _read(request: Request, name: str) -> str:
    value = request.headers.get(name, "").strip()
    try:
        # Names have letters beyond ASCII, and clients send them in UTF-8.
        value = value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        value = "\ufffd"
    if len(value) > _LONGEST[name] or not value.replace("\ufffd", "\0").isprintable():
        reason = f"at most {_LONGEST[name]} printable characters, in UTF-8"
        raise InvalidInput(f"{name}: {reason}", problems=[{"field": name, "reason": reason}])
    return value
