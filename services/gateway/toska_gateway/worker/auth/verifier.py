"""Verifying the tokens of one issuer in a worker, and remembering those that were."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from toska_common.jwt.claims import DEFAULT_TYPES, Claims, TokenRules, roles_of, scopes_of
from toska_common.jwt.keys import VerificationKey
from toska_common.jwt.verifier import verify

from toska_gateway.worker.auth.claim_fields import field_lines
from toska_gateway.worker.auth.key_rings import KeyRing, KeyRings
from toska_gateway.worker.auth.sources import source_name
from toska_gateway.worker.auth.token_cache import TokenCache

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane


class Bearer:
    """Whoever comes with a token that was verified, and what that grants.

    Attributes:
        claims: What the token says; read-only.
        scopes: The scopes that it grants.
        roles: The roles that it grants.
        lines: Field lines that tell the upstream of it.
        ends: From when on it is not believed any more, in seconds since 1970.
        key: What it is signed with; it is believed as long as that is live.
    """

    __slots__ = ("claims", "ends", "key", "lines", "roles", "scopes")

    def __init__(
        self,
        claims: Claims,
        scopes: frozenset[str],
        roles: frozenset[str],
        lines: tuple[bytes, ...],
        ends: float,
        key: VerificationKey,
    ) -> None:
        self.claims = claims
        self.scopes = scopes
        self.roles = roles
        self.lines = lines
        self.ends = ends
        self.key = key


class Verifier:
    """Verifies the tokens of one issuer; routes with the same settings share one.

    Attributes:
        ring: The issuer's keys.
        cache: Tokens that were verified.
        of_no_concern: Field lines that hold neither the token nor anything that the upstream is told by us.
    """

    __slots__ = ("__weakref__", "_fields", "_plane", "_roles_claim", "_rules", "cache", "of_no_concern", "ring")

    def __init__(self, jwt: Mapping[str, Any], ring: KeyRing, plane: "Plane") -> None:
        types = frozenset(kind.lower().removeprefix("application/") for kind in jwt["type"])
        self._rules = TokenRules(
            issuer=jwt["issuer"],
            audiences=frozenset(jwt["audience"]),
            algorithms=frozenset(jwt["algorithms"]),
            types=types or DEFAULT_TYPES,
            skew_s=jwt["clock_skew"],
            required=tuple(jwt["required_claims"]),
            max_bytes=jwt["max_token_bytes"],
        )
        self._roles_claim: str = jwt["roles_claim"]
        self._fields: Mapping[str, str] = jwt["forward"]
        self._plane = plane
        self.ring = ring
        self.cache = TokenCache()
        self.of_no_concern: dict[bytes, None] = {b"": None}

    def recall(self, key: bytes) -> Bearer | None:
        """Who came with these very bytes before, if that is still believed."""
        cache = self.cache
        bearer = cache.young.get(key) or cache.find_old(key)
        if bearer is None:
            return None
        if bearer.ends > self._plane.wall and bearer.key.live:
            return bearer
        cache.drop(key)
        return None

    def verify(self, token: bytes, key: bytes) -> Bearer:
        """Verify a token, and remember it under `key`.

        Raises:
            toska_common.jwt.refusals.UnknownKey: All else holds, and its key is not here.
            toska_common.jwt.refusals.TokenRefused: It does not hold.
        """
        found = verify(token, self._rules, self.ring.keys, self._plane.wall)
        claims = found.claims
        bearer = Bearer(
            claims,
            scopes_of(claims),
            roles_of(claims, self._roles_claim),
            field_lines(claims, self._fields),
            found.expires_at,
            found.key,
        )
        self.cache.put(key, bearer)
        self._plane.stats.tokens_verified += 1
        return bearer


class Verifiers:
    """The verifiers that routes use, and the rings of keys behind them; neither outlives the last route that does."""

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self.rings = KeyRings(plane.loop, plane.ask_for_keys)
        self._verifiers: WeakValueDictionary[str, Verifier] = WeakValueDictionary()

    def verifier(self, jwt: Mapping[str, Any]) -> Verifier:
        """The verifier for these settings; through a change of routes it keeps what it remembers."""
        settings = json.dumps(jwt, sort_keys=True)
        verifier = self._verifiers.get(settings)
        if verifier is None:
            verifier = Verifier(jwt, self.rings.ring(source_name(jwt)), self._plane)
            self._verifiers[settings] = verifier
        return verifier
