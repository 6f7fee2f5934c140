"""An issuer of tokens for a bench: a key set, and tokens of a hundred users."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from toska_common.clock import now_utc

_USERS = 100
_KEY = "bench"


@dataclass(frozen=True, slots=True)
class Guard:
    """Who is let through, and that a line of JSON is kept of everyone.

    Attributes:
        keys: File of the JWK Set.
        tokens: File of tokens, one to a line.
    """

    keys: Path
    tokens: Path
    issuer: str = "https://auth.example"
    audience: str = "shop"

    @property
    def token(self) -> str:
        """One of the tokens."""
        return self.tokens.read_text().split("\n", 1)[0]


def make_guard(folder: Path) -> Guard:
    """An RSA key of 2,048 bits, which is what most issuers sign with, and tokens of it that outlast the bench."""
    guard = Guard(folder / "jwks.json", folder / "tokens")
    key = rsa.generate_private_key(65537, 2048)
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    guard.keys.write_text(json.dumps({"keys": [{**public, "kid": _KEY, "alg": "RS256", "use": "sig"}]}))
    now = now_utc()
    tokens = [
        jwt.encode(
            {
                "iss": guard.issuer,
                "aud": guard.audience,
                "sub": f"user-{number}",
                "iat": now,
                "exp": now + timedelta(days=1),
                "scope": "orders:read orders:write",
                "email": f"user-{number}@shop.example",
                "roles": ["clerk"],
            },
            key,
            "RS256",
            {"kid": _KEY},
        )
        for number in range(_USERS)
    ]
    guard.tokens.write_text("\n".join(tokens))
    return guard
