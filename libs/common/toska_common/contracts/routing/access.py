"""Who is let in: by address, and by the way they come."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.server import TrustedPeer
from toska_common.contracts.routing.words import switched


class IpRules(Document):
    """Which clients are served, by address; of a client behind `server.trusted_proxies` it is the client's own.

    An address of `deny` is refused, whatever `allow` says. With `allow`, only its addresses are served.
    """

    allow: tuple[TrustedPeer, ...] = Field(
        default=(), description="Networks as CIDR; unix: is whoever comes by a socket"
    )
    deny: tuple[TrustedPeer, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.allow and not self.deny:
            raise ValueError("give allow, deny, or both")
        return self


class RequireHttps(Document):
    """Requests over plain HTTP, to us or to the first of `server.trusted_proxies`, are not served."""

    otherwise: Literal["redirect", "refuse"] = Field(default="redirect", description="308 to https, or 403")
    port: int = Field(default=443, ge=1, le=65535, description="Where https is served")


HttpsSwitch = Annotated[RequireHttps | None, BeforeValidator(switched)]
