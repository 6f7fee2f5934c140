"""Whose shop a request is for: told by the host that it names, and passed on to services as a header.

policies:
  filters: [{use: "shop.filters:AddTenant", settings: {tenants: {"acme.example": acme}, default: public}}]
"""

from pydantic import BaseModel, Field
from toska_common.filters import Filter, Reject, Request


class TenantSettings(BaseModel):
    """Which hosts there are."""

    tenants: dict[str, str] = Field(min_length=1, description="Tenant by host, without a port")
    default: str | None = Field(default=None, description="For all other hosts; without it they are refused")
    header: str = "x-tenant"


class AddTenant(Filter):
    """Sets the tenant's header, whatever the client sent there."""

    settings: TenantSettings

    def on_request(self, request: Request) -> None:
        host = request.host.partition(":")[0].lower()
        tenant = self.settings.tenants.get(host, self.settings.default)
        if tenant is None:
            raise Reject(404, "there is no shop at this host")
        request.headers[self.settings.header] = tenant
        request.variant = tenant  # one tenant never gets from the cache what was for another
        request.state["tenant"] = tenant
