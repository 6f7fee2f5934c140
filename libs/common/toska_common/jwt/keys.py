"""Verification keys from JSON Web Keys (RFC 7517, RFC 7518 §6, RFC 8037): what is weak or unclear is not used."""

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from toska_common.jwt.algorithms import CURVE_ALGORITHMS, HASH_BITS, RSA_ALGORITHMS, SECRET_ALGORITHMS
from toska_common.jwt.compact import decode_base64url
from toska_common.jwt.refusals import TokenRefused

MIN_RSA_BITS: Final = 2048
"""RFC 7518 §3.3."""
_MAX_RSA_BITS: Final = 8192
_MAX_EXPONENT_BITS: Final = 64
# (a larger key or exponent lets each token of an attacker cost us milliseconds)
MAX_KID: Final = 256

_DIGITS: Final = re.compile(r"[A-Za-z0-9_-]+")
_HASHES: Final[dict[int, hashes.HashAlgorithm]] = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}

Check = Callable[[str, bytes, bytes], None]
"""`(algorithm, signature, signed)`; raises `InvalidSignature`."""


class UnusableKey(ValueError):
    """A key that is not used; the reason is for the operator, and holds nothing of the key."""


class VerificationKey:
    """A key that tokens are checked with.

    Attributes:
        kid: Its name in the set, if it has one.
        algorithms: What it may be used with; decided by the key, and never by a token.
        live: Whether it is in its set still. Whoever remembers a token that this key has signed asks here.
    """

    __slots__ = ("_check", "algorithms", "kid", "live")

    def __init__(self, kid: str | None, algorithms: frozenset[str], check: Check) -> None:
        self.kid = kid
        self.algorithms = algorithms
        self.live = True
        self._check = check

    def has_signed(self, algorithm: str, signature: bytes, signed: bytes) -> bool:
        """Whether the signature over `signed` is of this key."""
        try:
            self._check(algorithm, signature, signed)
        except InvalidSignature:
            return False
        return True


def read_key(jwk: Mapping[str, Any]) -> VerificationKey:
    """Make a key of a JWK.

    Raises:
        UnusableKey: It is not for signatures, not understood, not well formed, or too weak.
    """
    kid = jwk.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise UnusableKey(f"its kid is not a text of at most {MAX_KID} characters")
    if jwk.get("use", "sig") != "sig":
        raise UnusableKey("its use is not sig")
    operations: object = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in cast("list[object]", operations)):
        raise UnusableKey("verify is not among its key_ops")
    kind: object = jwk.get("kty")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise UnusableKey("its kty is not RSA, EC, OKP or oct")
    try:
        algorithms, check = read(jwk)
    except (UnsupportedAlgorithm, TokenRefused, ValueError) as error:
        if isinstance(error, UnusableKey):
            raise
        raise UnusableKey("it is no valid key of its kind") from None
    pinned: object = jwk.get("alg")
    if pinned is not None:
        algorithms = algorithms.intersection((pinned,)) if isinstance(pinned, str) else frozenset[str]()
    if not algorithms:
        raise UnusableKey("its alg does not go with it, or is not served here")
    return VerificationKey(kid, algorithms, check)


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    value: object = jwk.get(name)
    if not isinstance(value, str) or _DIGITS.fullmatch(value) is None:
        raise UnusableKey(f"its {name} is missing or not base64url")
    return decode_base64url(value.encode())


def _rsa(jwk: Mapping[str, Any]) -> tuple[frozenset[str], Check]:
    modulus, exponent = int.from_bytes(_member(jwk, "n")), int.from_bytes(_member(jwk, "e"))
    if modulus.bit_length() < MIN_RSA_BITS:
        raise UnusableKey(f"an RSA key has at least {MIN_RSA_BITS} bits, and this one {modulus.bit_length()}")
    if modulus.bit_length() > _MAX_RSA_BITS or exponent.bit_length() > _MAX_EXPONENT_BITS:
        raise UnusableKey("it is so large that checking a signature would take too long")
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    pkcs1 = padding.PKCS1v15()

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        digest = _HASHES[HASH_BITS[algorithm]]
        if algorithm[0] == "R":
            key.verify(signature, signed, pkcs1, digest)
        else:
            key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)

    return RSA_ALGORITHMS, check


def _elliptic(jwk: Mapping[str, Any]) -> tuple[frozenset[str], Check]:
    curve = _CURVES.get(str(jwk.get("crv")))
    if curve is None:
        raise UnusableKey("its crv is not P-256, P-384 or P-521")
    size = (curve.key_size + 7) // 8
    x, y = _member(jwk, "x"), _member(jwk, "y")
    if len(x) != size or len(y) != size:
        raise UnusableKey("its coordinates are not of its curve's length")
    # Refuses a point that is not on the curve.
    key = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve).public_key()

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidSignature
        pair = encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
        key.verify(pair, signed, ec.ECDSA(_HASHES[HASH_BITS[algorithm]]))

    return CURVE_ALGORITHMS[str(jwk["crv"])], check


def _edwards(jwk: Mapping[str, Any]) -> tuple[frozenset[str], Check]:
    curve, x = jwk.get("crv"), _member(jwk, "x")
    if curve == "Ed25519":
        verify = ed25519.Ed25519PublicKey.from_public_bytes(x).verify
    elif curve == "Ed448":
        verify = ed448.Ed448PublicKey.from_public_bytes(x).verify
    else:
        raise UnusableKey("its crv is not Ed25519 or Ed448")

    def check(_algorithm: str, signature: bytes, signed: bytes) -> None:
        verify(signature, signed)

    return CURVE_ALGORITHMS[curve], check


def _secret(jwk: Mapping[str, Any]) -> tuple[frozenset[str], Check]:
    secret = _member(jwk, "k")
    # RFC 7518 §3.2: at least as long as the hash.
    algorithms = frozenset(name for name in SECRET_ALGORITHMS if len(secret) * 8 >= HASH_BITS[name])
    if not algorithms:
        raise UnusableKey("a secret has at least 32 bytes")

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        if not hmac.compare_digest(hmac.digest(secret, signed, f"sha{HASH_BITS[algorithm]}"), signature):
            raise InvalidSignature

    return algorithms, check


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], tuple[frozenset[str], Check]]]] = {
    "RSA": _rsa,
    "EC": _elliptic,
    "OKP": _edwards,
    "oct": _secret,
}
