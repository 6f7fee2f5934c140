"""Filters: your own Python in the way of a route's requests. One small class, and one line in the route.

    from toska_common.filters import Filter, Reject, Request

    class AddTenant(Filter):
        def on_request(self, request: Request) -> None:
            tenant = request.host.partition(".")[0]
            if tenant not in ("acme", "globex"):
                raise Reject(404, "there is no such tenant")
            request.headers["x-tenant"] = tenant

    policies: {filters: ["shop.filters:AddTenant"]}

A filter runs in the gateway's workers, between all their requests: it imports nothing but the standard library, and
what it does takes microseconds. What waits is written with `async def`. `docs/filters.md` has the whole story.
"""

from toska_common.filters.base import BodyFilter, Filter
from toska_common.filters.headers import HeaderRefused, Headers, Misuse
from toska_common.filters.messages import Answer, Reject, Request, Response

__all__ = ["Answer", "BodyFilter", "Filter", "HeaderRefused", "Headers", "Misuse", "Reject", "Request", "Response"]
