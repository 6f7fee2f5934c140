"""What a token has to say to be believed here (RFC 7519 §4.1, RFC 8725 §3.8 to §3.12), and what it grants."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, cast

from toska_common.jwt.refusals import TokenRefused

Claims = Mapping[str, Any]
"""Read-only all through: lists are tuples, objects are mapping proxies. They are shared between requests."""

_LATEST: Final = 2.0**53
_OWN_KEYS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})
DEFAULT_TYPES: Final = frozenset({"", "jwt", "at+jwt"})
"""What `typ` may be where nothing is asked for: absent, or of a kind that is shown to servers like this one."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is asked of a token.

    Attributes:
        issuer: What `iss` has to be, to the letter.
        audiences: One of these has to be in `aud`.
        algorithms: The pinned ones.
        types: What `typ` may be: lower-case, without `application/`; an empty one where it may be absent.
        skew_s: By so many seconds the issuer's clock may differ from ours.
        required: Claims that have to be there, besides `iss`, `aud` and `exp`.
        max_bytes: Longest token that is looked at.
    """

    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    types: frozenset[str] = DEFAULT_TYPES
    skew_s: float = 30.0
    required: tuple[str, ...] = ()
    max_bytes: int = 8192


def check_header(header: Mapping[str, Any], rules: TokenRules) -> str:
    """Check a JOSE header; returns the algorithm.

    Raises:
        TokenRefused: It does not hold.
    """
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise TokenRefused("the token is not signed with an algorithm that is accepted here")
    if "crit" in header or "b64" in header:
        # No extension is understood here, and what is critical has to be (RFC 7515 §4.1.11).
        raise TokenRefused("the token asks for an extension that is not understood here")
    if not _OWN_KEYS.isdisjoint(header):
        raise TokenRefused("the token brings a key of its own, and only its issuer's keys count")
    kind = header.get("typ", "")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in rules.types:
        raise TokenRefused("the token is of another type than is accepted here")
    return algorithm


def check_claims(claims: Mapping[str, Any], rules: TokenRules, now: float) -> float:
    """Check a token's claims at `now`, in seconds since 1970; returns when it ends, the allowed skew included.

    Raises:
        TokenRefused: They do not hold.
    """
    if claims.get("iss") != rules.issuer:
        raise TokenRefused("the token is from another issuer")
    if rules.audiences.isdisjoint(_audiences(claims.get("aud"))):
        raise TokenRefused("the token is for another audience")
    expires = _date(claims, "exp")
    if expires is None:
        raise TokenRefused("the token says no time at which it expires")
    ends = expires + rules.skew_s
    if now >= ends:
        raise TokenRefused("the token has expired")
    latest = now + rules.skew_s
    begins = _date(claims, "nbf")
    if begins is not None and begins > latest:
        raise TokenRefused("the token is not valid yet")
    issued = _date(claims, "iat")
    if issued is not None and issued > latest:
        raise TokenRefused("the token is from the future")
    for name in ("sub", "jti"):
        if not isinstance(claims.get(name, ""), str):
            raise TokenRefused("a claim of the token is of the wrong type")
    for name in rules.required:
        if claims.get(name) is None:
            raise TokenRefused("the token lacks a claim that is required here")
    return ends


def _audiences(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    members = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(member for member in members if isinstance(member, str))


def _date(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2)."""
    value: object = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise TokenRefused("a time in the token is not one")
    return float(value)


def find_claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path into nested objects such as `realm_access.roles`; `None` if it is not there.

    A claim whose name is the whole path goes first: names are often URLs, with dots in them.
    """
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = cast("Mapping[str, Any]", found).get(name)
    return found


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes that a token grants: `scope` (RFC 8693 §4.2, separated by spaces) and `scp`, each text or a list."""
    return frozenset((*_words(claims.get("scope")), *_words(claims.get("scp"))))


def roles_of(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The roles under `path`: a list, or one name. Not separated by spaces, since a role may have one in its name."""
    value = find_claim(claims, path)
    return frozenset((value,) if isinstance(value, str) else _members(value))


def _words(value: object) -> tuple[str, ...]:
    return tuple(value.split(" ")) if isinstance(value, str) else _members(value)


def _members(value: object) -> tuple[str, ...]:
    members = cast("list[object] | tuple[object, ...]", value) if isinstance(value, list | tuple) else ()
    return tuple(member for member in members if isinstance(member, str))


def frozen(value: Any) -> Any:
    """A read-only copy of parsed JSON."""
    if isinstance(value, dict):
        return MappingProxyType({name: frozen(item) for name, item in cast("dict[str, Any]", value).items()})
    if isinstance(value, list):
        return tuple(frozen(item) for item in cast("list[Any]", value))
    return value


def plain(value: Any) -> Any:
    """What `frozen` was made of, for writing it as JSON."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [plain(item) for item in cast("tuple[Any, ...]", value)]
    return value
