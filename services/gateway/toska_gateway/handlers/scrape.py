"""`/metrics`: the control part's own series, and the data plane's, summed over its workers."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from toska_common.metrics import ServiceMetrics

from toska_gateway.exposition import OPENMETRICS
from toska_gateway.parts import PartsSlot

_END = b"# EOF\n"


def scrape_route(slot: PartsSlot, metrics: ServiceMetrics) -> Route:
    """The endpoint; it stands ahead of the one that knows only `metrics`."""

    async def scrape(request: Request) -> Response:
        own, content_type = metrics.render(request.headers.get("accept", ""))
        openmetrics = content_type.startswith(OPENMETRICS)
        workers = await slot.get().data_plane.metrics(openmetrics=openmetrics)
        end = _END if openmetrics else b""
        return Response(own.removesuffix(_END) + workers.encode() + end, headers={"content-type": content_type})

    return Route("/metrics", scrape, name="metrics")
