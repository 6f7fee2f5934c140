"""The signature algorithms that may be pinned (RFC 7518 §3.1, RFC 8037, RFC 9864), and which keys they go with.

`none` is not among them, and what is keyed with a secret never stands beside what is keyed with a public key: so no
token can choose to be checked with a public key as if that were a secret.
"""

from typing import Final, Literal

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
    "HS256", "HS384", "HS512",
]  # fmt: skip

HASH_BITS: Final = {
    "RS256": 256, "RS384": 384, "RS512": 512, "PS256": 256, "PS384": 384, "PS512": 512,
    "ES256": 256, "ES384": 384, "ES512": 512, "HS256": 256, "HS384": 384, "HS512": 512,
}  # fmt: skip
"""Of the SHA-2 function that the message is hashed with; Edwards curves bring their own."""

RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
SECRET_ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})
"""Keyed with a secret that whoever verifies has too, and could sign with."""
CURVE_ALGORITHMS: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA", "Ed25519"}),
    "Ed448": frozenset({"EdDSA", "Ed448"}),
}
