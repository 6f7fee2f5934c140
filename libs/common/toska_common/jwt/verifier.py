"""Verifying a token against rules and a set of keys; the same for every issuer, one within the mesh included."""

from collections.abc import Mapping
from typing import Any

from toska_common.jwt.claims import Claims, TokenRules, check_claims, check_header, frozen
from toska_common.jwt.compact import read_compact
from toska_common.jwt.key_set import KeySet
from toska_common.jwt.keys import MAX_KID, VerificationKey
from toska_common.jwt.refusals import TokenRefused, UnknownKey


class VerifiedToken:
    """A token that is believed.

    Attributes:
        claims: What it says; read-only.
        expires_at: From when on it is not believed any more, in seconds since 1970, the allowed skew included.
        key: What it is signed with; when that is no longer live, it is not believed either.
    """

    __slots__ = ("claims", "expires_at", "key")

    def __init__(self, claims: Claims, expires_at: float, key: VerificationKey) -> None:
        self.claims = claims
        self.expires_at = expires_at
        self.key = key


def verify(token: bytes, rules: TokenRules, keys: KeySet, now: float) -> VerifiedToken:
    """Verify a token in compact form at `now`, in seconds since 1970.

    Raises:
        UnknownKey: All else holds, and no key of the set can have signed it.
        TokenRefused: It does not hold.
    """
    parsed = read_compact(token, rules.max_bytes)
    algorithm = check_header(parsed.header, rules)
    expires_at = check_claims(parsed.claims, rules, now)
    kid = _kid(parsed.header)
    candidates = keys.find(kid, algorithm)
    for key in candidates:
        if key.has_signed(algorithm, parsed.signature, parsed.signed):
            return VerifiedToken(frozen(parsed.claims), expires_at, key)
    if candidates and kid is not None:
        raise TokenRefused("the token's signature does not fit")
    raise UnknownKey(kid)


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KID):
        raise TokenRefused("the token's kid is not a name of a key")
    return kid
