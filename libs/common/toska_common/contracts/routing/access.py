"""Who is let in by address."""

from typing import Self

from pydantic import Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.server import TrustedPeer


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
