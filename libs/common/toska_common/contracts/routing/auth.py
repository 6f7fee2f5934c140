"""Who may pass: tokens that are verified at the door, and the scopes and roles that they have to grant."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import FRAMING, CookieName, HeaderName
from toska_common.contracts.tls import FileName
from toska_common.jwt.algorithms import SECRET_ALGORITHMS, Algorithm
from toska_common.units import Duration, Size

Claim = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""A claim's name, or a path into nested objects: `realm_access.roles`."""
ScopeToken = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,256}$")]
"""RFC 6749 §3.3."""
TokenType = Annotated[str, StringConstraints(pattern=r"^[!#$&^_.+A-Za-z0-9-]{1,64}$")]
KeySetWords = Mapping[str, tuple[Mapping[str, Any], ...]]
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_TAKEN = FRAMING | {
    "authorization", "cookie", "expect", "http2-settings", "proxy-authorization", "via", "x-consul-token",
    "x-toska-caller",
}  # fmt: skip
_KEY_SOURCES = ("jwks_url", "jwks_file", "jwks")


class TokenPlace(Document):
    """Where the token stands, if not in `Authorization: Bearer`: one of these."""

    header: HeaderName | None = Field(default=None, description="Its whole value is the token")
    cookie: CookieName | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise ValueError("give either header or cookie")
        if self.header is not None and self.header in _TAKEN:
            raise ValueError("the header is one of the token's own; leave token_from out for Authorization: Bearer")
        return self


class Jwt(Document):
    """Signed tokens (RFC 7519) of one issuer. What is not said here is as RFC 8725 wants it."""

    issuer: str = Field(min_length=1, max_length=2048, description="What iss has to be, to the letter")
    audience: tuple[Annotated[str, StringConstraints(min_length=1, max_length=2048)], ...] = Field(
        min_length=1, max_length=100, description="One name or several, of which aud has to hold one"
    )
    jwks_url: str | None = Field(default=None, max_length=2048, description="Where the issuer's keys are fetched from")
    jwks_file: FileName | None = Field(
        default=None, description="A JWK Set on the gateway's machine, read again when it changes"
    )
    jwks: KeySetWords | None = Field(default=None, description="A JWK Set, with public keys only")
    jwks_ca: FileName | None = Field(
        default=None, description="PEM file of authorities for jwks_url; default: the system's"
    )
    jwks_refresh: Duration = Field(
        default=timedelta(minutes=5), description="How often keys are fetched where their server says no max-age"
    )
    jwks_allow_http: bool = Field(
        default=False, description="Fetch keys unprotected, so that whoever is on the way can put in their own"
    )
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256",), min_length=1)
    type: tuple[TokenType, ...] = Field(
        default=(), description="What typ has to be, such as at+jwt (RFC 9068); default: JWT, at+jwt or absent"
    )
    clock_skew: Duration = Field(default=timedelta(seconds=30), description="For exp, nbf and iat")
    required_claims: tuple[Claim, ...] = Field(default=(), description="Besides iss, aud and exp")
    max_token_bytes: Size = Field(default=8192, ge=256, le=65536)
    token_from: TokenPlace | None = Field(default=None, description="Default: Authorization: Bearer")
    roles_claim: Claim = Field(default="roles", description="Where roles stand, such as realm_access.roles")
    forward: Mapping[HeaderName, Claim] = Field(
        default_factory=dict[str, str],
        description="Header to claim: what the upstream is told; taken out of what clients send",
    )
    forward_token: bool = Field(default=True, description="Whether the upstream is sent the token itself")

    @field_validator("audience", "type", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("jwks_url")
    @classmethod
    def _plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is a whole URL: https://…")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("has no user, password or fragment")
        if any(not "!" <= char <= "~" for char in value):
            raise ValueError("is written in ASCII and without spaces")
        _ = parts.port  # raises, if it is none
        return value

    @field_validator("jwks")
    @classmethod
    def _public_keys(cls, value: KeySetWords | None) -> KeySetWords | None:
        if value is None:
            return None
        if not value.get("keys"):
            raise ValueError('is a JWK Set: an object with a list of "keys"')
        # Routing is shown by the router's API, and kept in several files.
        if any("d" in key or "k" in key for key in value["keys"]):
            raise ValueError("holds a secret, which does not belong into routing: use jwks_file")
        return value

    @field_validator("clock_skew")
    @classmethod
    def _small(cls, value: timedelta) -> timedelta:
        if not timedelta() <= value <= timedelta(minutes=5):
            raise ValueError("lies between 0s and 5m")
        return value

    @field_validator("jwks_refresh")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= value <= timedelta(days=1):
            raise ValueError("lies between 1s and 24h")
        return value

    @field_validator("forward")
    @classmethod
    def _leaves_framing_alone(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        wrong = sorted(_TAKEN.intersection(name.replace("_", "-") for name in value))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be set from a claim")
        if len({name.replace("_", "-") for name in value}) != len(value):
            raise ValueError("two headers differ by - and _ alone, which upstreams may take for one")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _KEY_SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of jwks_url, jwks_file and jwks: where the issuer's keys are")
        secret = SECRET_ALGORITHMS.intersection(self.algorithms)
        if secret and len(secret) != len(set(self.algorithms)):
            raise ValueError("HS256, HS384 and HS512 are keyed with a secret and stand alone: not beside public keys")
        if secret and given != ["jwks_file"]:
            raise ValueError(f"{', '.join(sorted(secret))} needs a secret, which belongs into jwks_file")
        return self

    @model_validator(mode="after")
    def _usable_keys(self) -> Self:
        if self.jwks is not None:
            try:
                from toska_common.jwt.key_set import UnusableKeySet, read_key_set
            except ImportError:  # without cryptography it is for the gateways to say, who verify
                return self
            try:
                read_key_set(self.model_dump(mode="json", include={"jwks"})["jwks"], self.algorithms)
            except UnusableKeySet as error:
                raise ValueError(f"jwks: {error}") from error
        return self

    @model_validator(mode="after")
    def _protected(self) -> Self:
        if self.jwks_url is None:
            if self.jwks_ca is not None or self.jwks_allow_http:
                raise ValueError("jwks_ca and jwks_allow_http go with jwks_url")
            return self
        parts = urlsplit(self.jwks_url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not self.jwks_allow_http:
            raise ValueError("jwks_url is https://, unless jwks_allow_http says that whoever is on the way is trusted")
        if parts.scheme == "http" and self.jwks_ca is not None:
            raise ValueError("jwks_ca is for https://")
        return self


class Auth(Document):
    """Only requests with a token that is believed and grants enough are let through."""

    jwt: Jwt
    scopes: tuple[ScopeToken, ...] = Field(default=(), description="All of these are needed")
    roles: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = Field(
        default=(), description="Any of these is needed"
    )
    optional: bool = Field(
        default=False, description="Let requests without a token through, as nobody's; a bad one is refused still"
    )

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.optional and (self.scopes or self.roles):
            raise ValueError("optional lets requests through that have no scopes and no roles; leave one of them out")
        return self
