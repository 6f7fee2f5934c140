"""An issuer of tokens for tests: keys of every kind, tokens well formed and not, and a server of JWK Sets.

Tokens are put together by hand, since most of those that a test needs are ones that no library would make.
"""

import base64
import hmac
import json
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from toska_common.clock import now_utc

from toska_tests.raw_http import Conversation, Upstream, response, upstream

ISSUER = "https://issuer.example"
AUDIENCE = "shop"
_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_NAMES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    """An integer as JWKs write it."""
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8))


def seconds(offset: float = 0) -> int:
    """A NumericDate so far from now."""
    return int(now_utc().timestamp() + offset)


class SigningKey:
    """A private key, its public JWK, and signatures with it."""

    def __init__(self, algorithm: str = "RS256", kid: str | None = "k1", *, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self._private: Any
        self.jwk: dict[str, Any]
        if algorithm[:2] in ("RS", "PS"):
            self._private = rsa.generate_private_key(65537, bits)
            public = self._private.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        elif algorithm[:2] == "ES":
            curve = _CURVES[algorithm]
            self._private = ec.generate_private_key(curve)
            point, size = self._private.public_key().public_numbers(), (curve.key_size + 7) // 8
            self.jwk = {
                "kty": "EC", "crv": _NAMES[algorithm], "x": number(point.x, size), "y": number(point.y, size)
            }  # fmt: skip
        elif algorithm[:2] == "HS":
            self._private = secrets.token_bytes(64)
            self.jwk = {"kty": "oct", "k": b64(self._private)}
        else:
            curve448 = algorithm == "Ed448"
            self._private = ed448.Ed448PrivateKey.generate() if curve448 else ed25519.Ed25519PrivateKey.generate()
            public_bytes = self._private.public_key().public_bytes_raw()
            self.jwk = {"kty": "OKP", "crv": "Ed448" if curve448 else "Ed25519", "x": b64(public_bytes)}
        if kid is not None:
            self.jwk["kid"] = kid

    @property
    def private(self) -> Any:
        """The key itself."""
        return self._private

    def sign(self, data: bytes, algorithm: str | None = None) -> bytes:
        """A signature as JWS has it."""
        algorithm = algorithm or self.algorithm
        if algorithm[:2] == "HS":
            return hmac.digest(self._private, data, f"sha{algorithm[2:]}")
        if algorithm.startswith("Ed"):
            return self._private.sign(data)
        digest = _HASHES[algorithm[2:]]
        if algorithm[:2] == "RS":
            return self._private.sign(data, padding.PKCS1v15(), digest)
        if algorithm[:2] == "PS":
            return self._private.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(digest)))
        size = (self._private.curve.key_size + 7) // 8
        return r.to_bytes(size) + s.to_bytes(size)

    def token(self, header: Mapping[str, Any] | str | None = None, **claims: Any) -> str:
        """A token; without changes a good one. A claim or header member that is `None` is left out."""
        made = header if isinstance(header, str) else self.header(header or {})
        return self.signed(made, json.dumps(claims_of(**claims)))

    def header(self, changes: Mapping[str, Any]) -> str:
        """A JOSE header as JSON."""
        members = {"alg": self.algorithm, "kid": self.kid, "typ": "JWT", **changes}
        return json.dumps({name: value for name, value in members.items() if value is not None})

    def signed(self, header: str, claims: str, algorithm: str | None = None) -> str:
        """A token of this very text."""
        data = f"{b64(header.encode())}.{b64(claims.encode())}"
        return f"{data}.{b64(self.sign(data.encode(), algorithm))}"


def claims_of(**changes: Any) -> dict[str, Any]:
    """Claims of a good token, but for `changes`; `None` leaves one out."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": seconds(), "exp": seconds(300), **changes}
    return {name: value for name, value in claims.items() if value is not None}


def forged_with_public_key(key: SigningKey, secret: bytes) -> str:
    """A token signed with HS256 and what everybody has as the secret."""
    data = f"{b64(key.header({'alg': 'HS256'}).encode())}.{b64(json.dumps(claims_of()).encode())}"
    return f"{data}.{b64(hmac.digest(secret, data.encode(), 'sha256'))}"


def key_set(*keys: SigningKey) -> dict[str, Any]:
    """A JWK Set."""
    return {"keys": [key.jwk for key in keys]}


def jwt_policy(*keys: SigningKey, **more: Any) -> dict[str, Any]:
    """The policy `auth.jwt` with these keys in it, unless `more` says where they are."""
    policy = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": sorted({key.algorithm for key in keys}), **more}
    return policy if "jwks_url" in more or "jwks_file" in more else {**policy, "jwks": key_set(*keys)}


@dataclass
class KeyServer:
    """A server of JWK Sets, whose answer can be changed at any time."""

    server: Upstream
    answer: bytes = b""

    @property
    def url(self) -> str:
        """Where the set is."""
        return f"http://127.0.0.1:{self.server.port}/jwks.json"

    @property
    def looks(self) -> int:
        """How often it was asked."""
        return len(self.server.requests)

    def publish(self, *keys: SigningKey, fields: tuple[str, ...] = ()) -> None:
        """Serve these keys from now on."""
        self.answer = response(200, "content-type: application/json", *fields, body=json.dumps(key_set(*keys)).encode())


@asynccontextmanager
async def key_server(*keys: SigningKey, fields: tuple[str, ...] = (), port: int = 0) -> AsyncGenerator[KeyServer]:
    """A running server of these keys."""

    async def script(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await conversation.send(served.answer)

    async with upstream(script, port=port) as server:
        served = KeyServer(server)
        served.publish(*keys, fields=fields)
        yield served
