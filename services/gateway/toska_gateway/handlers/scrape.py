"""`/metrics`: the control part's own series, and the data plane's, summed over its workers."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from toska_common.metrics import ServiceMetrics

from toska_gateway.parts import PartsSlot


def scrape_route(slot: PartsSlot, metrics: ServiceMetrics) -> Route:
    """The endpoint; it stands ahead of the one that knows only `metrics`."""

    async def scrape(_: Request) -> Response:
        # The classic text format whatever is asked for: two OpenMetrics texts, each with its EOF, are not one.
        own, content_type = metrics.render()
        workers = await slot.get().data_plane.metrics()
        return Response(own + workers.encode(), headers={"content-type": content_type})

    return Route("/metrics", scrape, name="metrics")
