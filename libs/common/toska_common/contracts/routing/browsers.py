"""What browsers are told: which pages of other origins may ask (CORS), and how to treat what they get."""

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import HeaderName, HeaderValue, switched
from toska_common.units import Duration

ANY = "*"
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(\d{1,5}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _origin(value: str) -> str:
    if value == ANY:
        return value
    if value == "null":
        raise ValueError("null is the origin of every sandboxed page, of anybody's; it cannot be allowed by name")
    match = _ORIGIN.fullmatch(value)
    if match is None:
        raise ValueError(
            "an origin is *, or a scheme and a lower-case host such as https://shop.example:8443, without a path; "
            "https://*.shop.example stands for every name below it"
        )
    if match[2] is not None and match[2] == _DEFAULT_PORTS.get(match[1]):
        raise ValueError(f"browsers leave the default port out of an origin: write it without :{match[2]}")
    return value


Origin = Annotated[str, AfterValidator(_origin)]
AnyMethod = Annotated[str, Field(pattern=r"^([A-Z]{1,20}|\*)$")]


class Cors(Document):
    """Which pages of other origins may ask, and read the answers (the CORS protocol of the Fetch standard).

    Preflights are answered by the gateway. What an upstream says in these fields is replaced.
    """

    allow_origins: tuple[Origin, ...]
    allow_methods: tuple[AnyMethod, ...] = Field(
        default=("GET", "HEAD", "POST"), description="Browsers ask for leave only of others than these three"
    )
    allow_headers: tuple[HeaderName, ...] = Field(default=(), description="Of requests, besides those always allowed")
    expose_headers: tuple[HeaderName, ...] = Field(default=(), description="Of answers, besides those always readable")
    allow_credentials: bool = Field(default=False, description="Cookies and the like travel along")
    allow_private_network: bool = Field(
        default=False, description="Pages of the public network may ask although this is a private one"
    )
    max_age: Duration = Field(default=timedelta(minutes=10), description="How long browsers remember a preflight")

    @field_validator("allow_origins")
    @classmethod
    def _some_origin(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:  # (said here, for of a list whose members are wrong it would be said too)
            raise ValueError("name at least 1 origin, or *")
        return value

    @field_validator("max_age")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        if not timedelta() <= value <= timedelta(days=1):
            raise ValueError("lies between 0s, which is not at all, and 1d, beyond which no browser remembers")
        return value

    @model_validator(mode="after")
    def _no_wildcards_with_credentials(self) -> Self:
        if self.allow_credentials:
            for name in ("allow_origins", "allow_methods", "allow_headers", "expose_headers"):
                if ANY in getattr(self, name):
                    raise ValueError(f"{name}: * and allow_credentials do not go together (Fetch §3.3.5); list them")
        return self


class Hsts(Document):
    """Strict-Transport-Security (RFC 6797); sent over TLS only."""

    max_age: Duration = timedelta(days=365)
    include_subdomains: bool = False
    preload: bool = False

    @model_validator(mode="after")
    def _fit_for_preloading(self) -> Self:
        if self.max_age < timedelta():
            raise ValueError("max_age is 0s, which takes it back, or longer")
        if self.preload and not (self.include_subdomains and self.max_age >= timedelta(days=365)):
            raise ValueError("preload needs include_subdomains and a max_age of 365d or more")
        return self


ReferrerPolicy = Literal[
    "no-referrer", "no-referrer-when-downgrade", "origin", "origin-when-cross-origin", "same-origin", "strict-origin",
    "strict-origin-when-cross-origin", "unsafe-url",
]  # fmt: skip


class SecurityHeaders(Document):
    """Fields that make browsers careful. `security_headers: true` is all defaults; a field that is null is not sent."""

    hsts: Annotated[Hsts | None, BeforeValidator(switched)] = Hsts()
    content_type_options: bool = Field(default=True, description="X-Content-Type-Options: nosniff")
    frame_options: Literal["DENY", "SAMEORIGIN"] | None = "SAMEORIGIN"
    referrer_policy: ReferrerPolicy | None = "strict-origin-when-cross-origin"
    permissions_policy: HeaderValue | None = Field(default=None, min_length=1)
    content_security_policy: HeaderValue | None = Field(default=None, min_length=1)
    content_security_policy_report_only: HeaderValue | None = Field(default=None, min_length=1)
    cross_origin_opener_policy: (
        Literal["unsafe-none", "same-origin-allow-popups", "same-origin", "noopener-allow-popups"] | None
    ) = None
    cross_origin_embedder_policy: Literal["unsafe-none", "require-corp", "credentialless"] | None = None
    cross_origin_resource_policy: Literal["same-site", "same-origin", "cross-origin"] | None = None
    override: bool = Field(default=False, description="Replace what the upstream says; else it has the last word")


SecuritySwitch = Annotated[SecurityHeaders | None, BeforeValidator(switched)]
