"""An issuer's keys: read from a JWK Set (RFC 7517 §5), found by what a token's header says, replaced as they rotate."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from toska_common.jwt.keys import UnusableKey, VerificationKey, read_key

MAX_KEYS: Final = 100
_MAX_CANDIDATES: Final = 4
"""A token without `kid` is tried with at most so many keys."""
# Everything that verifying needs; a private key's other members are not taken along.
_PUBLIC: Final = ("kty", "kid", "use", "key_ops", "alg", "crv", "n", "e", "x", "y")
_SECRET: Final = (*_PUBLIC, "k")


class UnusableKeySet(ValueError):
    """A JWK Set with nothing in it that could be used; the reason is for the operator."""


@dataclass(frozen=True, slots=True)
class KeySetContent:
    """What was usable of a JWK Set.

    Attributes:
        keys: The usable keys, as JWKs, with their public members only.
        notes: What is wrong with the others, for the operator.
    """

    keys: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def read_key_set(document: object, algorithms: Iterable[str]) -> KeySetContent:
    """Read a parsed JWK Set for tokens signed with one of `algorithms`.

    Keys that are not understood, or are for something else, are left out, as RFC 7517 §5 says.

    Raises:
        UnusableKeySet: It is no JWK Set, or none of its keys can be used.
    """
    wanted = frozenset(algorithms)
    members: object = cast("dict[str, object]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise UnusableKeySet('it is no JWK Set: an object with a list of "keys"')
    jwks = cast("list[object]", members)
    if len(jwks) > MAX_KEYS:
        raise UnusableKeySet(f"it has more than {MAX_KEYS} keys")
    keys: list[Mapping[str, Any]] = []
    notes: list[str] = []
    for index, jwk in enumerate(jwks):
        try:
            if not isinstance(jwk, dict):
                raise UnusableKey("it is not an object")
            members_of_key = cast("dict[str, Any]", jwk)
            key = read_key(members_of_key)
            if key.algorithms.isdisjoint(wanted):
                raise UnusableKey("it goes with none of the algorithms")
            taken = _SECRET if members_of_key["kty"] == "oct" else _PUBLIC
            keys.append({name: members_of_key[name] for name in taken if name in members_of_key})
            if "d" in members_of_key:
                notes.append(f"key {index} is a private key, which only its issuer should have")
        except UnusableKey as error:
            notes.append(f"key {index} is not used: {error}")
    if not keys:
        raise UnusableKeySet("; ".join(("it has no key that could be used", *notes[:3])))
    return KeySetContent(tuple(keys), tuple(notes))


class KeySet:
    """The keys in force; a key that stays through a change stays the same object."""

    __slots__ = ("_all", "_by_kid", "_keys", "version")

    def __init__(self) -> None:
        self.version = ""
        self._keys: dict[str, VerificationKey] = {}
        self._by_kid: dict[str, tuple[VerificationKey, ...]] = {}
        self._all: tuple[VerificationKey, ...] = ()

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, jwks: Sequence[Mapping[str, Any]], version: str) -> None:
        """Have these keys from now on; those that are gone are no longer `live`.

        Raises:
            UnusableKey: One cannot be used; nothing has changed.
        """
        known = self._keys
        fresh: dict[str, VerificationKey] = {}
        for jwk in jwks:
            content = json.dumps(jwk, sort_keys=True)
            fresh[content] = known.get(content) or read_key(jwk)
        for content, key in known.items():
            key.live = content in fresh
        by_kid: dict[str, list[VerificationKey]] = {}
        for key in fresh.values():
            if key.kid is not None:
                by_kid.setdefault(key.kid, []).append(key)
        self._keys = fresh
        self._by_kid = {kid: tuple(keys) for kid, keys in by_kid.items()}
        self._all = tuple(fresh.values())
        self.version = version

    def find(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        """The keys that may have signed a token with this header; without a `kid` the first few of the set."""
        candidates = self._all if kid is None else self._by_kid.get(kid, ())
        return [key for key in candidates if algorithm in key.algorithms][:_MAX_CANDIDATES]
