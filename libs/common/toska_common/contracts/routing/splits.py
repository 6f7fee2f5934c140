"""One route and several clusters: who gets which of them, and whether they keep it."""

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.routing.matching import Conditions
from toska_common.contracts.routing.words import CookieName, HeaderName
from toska_common.units import Duration


class WeightedCluster(Document):
    """One part of a split: a share of the requests by `weight`, or those of which `when` holds."""

    cluster: ResourceName
    weight: int = Field(default=1, ge=0, le=1_000_000)
    when: Conditions | None = Field(
        default=None, description="It takes all requests of which this holds; the first such part counts"
    )

    @model_validator(mode="after")
    def _share_or_condition(self) -> Self:
        if self.when is None:
            return self
        if self.weight != 1:
            raise ValueError("give either weight or when: a part with when takes all requests of which that holds")
        if not self.when.values and not self.when.client_ip:
            raise ValueError("when needs headers, cookies, query or client_ip")
        return self


class Sticky(Document):
    """By what a caller is known again, so that it stays with its part of a split: one of these.

    Where a caller belongs follows from the key and the weights alone, in every gateway alike. If weights change, only
    so many callers move as have to. A request without the key goes by weight.
    """

    set_cookie: CookieName | None = Field(
        default=None, description="A cookie that the gateway sets; it holds a number, and says nothing of who it is"
    )
    ttl: Duration = Field(default=timedelta(), description="Life of set_cookie; 0s ends it with the browser's session")
    secure: bool = Field(default=False, description="set_cookie is sent over TLS only")
    header: HeaderName | None = None
    cookie: CookieName | None = Field(default=None, description="A cookie of the application's own")
    claim: str | None = Field(default=None, min_length=1, max_length=256, description="Of a token that auth verified")
    client_ip: bool = False

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        keys = (self.set_cookie, self.header, self.cookie, self.claim, self.client_ip or None)
        if sum(key is not None for key in keys) != 1:
            raise ValueError("give one of set_cookie, header, cookie, claim and client_ip: true")
        if self.set_cookie is None and (self.ttl or self.secure):
            raise ValueError("ttl and secure go with set_cookie")
        if not timedelta() <= self.ttl <= timedelta(days=400):
            raise ValueError("ttl lies between 0s and 400 days, which is as long as browsers keep a cookie")
        return self
