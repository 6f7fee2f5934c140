"""Tokens at the door."""

import re
from collections.abc import Sequence
from typing import Any

from toska_tests.conformance.case import Case, policies
from toska_tests.conformance.steps import Ask
from toska_tests.issuers import SigningKey, jwt_policy, seconds
from toska_tests.raw_http import get

_KEY = SigningKey("ES256")
_OTHER = SigningKey("ES256")
_AUTH = {"jwt": jwt_policy(_KEY, algorithms=["ES256"]), "scopes": ["orders:read"]}
_BEARER = re.compile(rb'Bearer .*realm="all".*')


_LATER = seconds(24 * 3600)
"""Tokens are made when cases are read, which is before they are played."""


def token(**claims: Any) -> str:
    """A good token, but for these claims."""
    return _KEY.token({}, **{"exp": _LATER, **claims})


def asking(shown: str) -> bytes:
    """A request with a token."""
    return get("/", f"Authorization: Bearer {shown}")


CASES: Sequence[Case] = (
    Case(
        "a token that is believed and grants enough lets a request pass",
        [Ask(asking(token(scope="orders:read orders:write")), by="a")],
        policies(auth=_AUTH),
    ),
    Case(
        "without a token the client is told what to show",
        [Ask(get(), 401, error="token-required", gets={"www-authenticate": _BEARER})],
        policies(auth=_AUTH),
    ),
    Case(
        "a token that is not believed is refused",
        [
            Ask(asking(shown), 401, error="invalid-token", gets={"www-authenticate": re.compile(rb".*invalid_token.*")})
            for shown in (
                _OTHER.token(scope="orders:read", exp=_LATER),
                token(scope="orders:read", exp=seconds(-120)),
                token(scope="orders:read", aud="other"),
                token(scope="orders:read", iss="https://evil.example"),
                "a.b.c",
            )
        ],
        policies(auth=_AUTH),
    ),
    Case(
        "a token that grants too little is refused otherwise",
        [
            Ask(
                asking(token(scope="orders:write")),
                403,
                error="insufficient-scope",
                gets={"www-authenticate": re.compile(rb".*insufficient_scope.*")},
            )
        ],
        policies(auth=_AUTH),
    ),
)
