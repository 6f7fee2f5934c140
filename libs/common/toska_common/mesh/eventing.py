"""An app's part in the mesh's events: where they are carried, with which credential, and what it tells about them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toska_common.clients.consul import ConsulClient
from toska_common.errors import UpstreamUnavailable
from toska_common.events.errors import EventsUnavailable
from toska_common.events.opening import open_transport
from toska_common.mesh.location import Location

if TYPE_CHECKING:
    from toska_common.events.bus import EventBus
    from toska_common.events.transport import Transport

EVENTS_SERVICE = "toska-events"
ASYNCAPI_PATH = "/asyncapi.json"
_ANSWERS_WITHIN_S = 2.0


class Eventing:
    """Opens what carries the mesh's events, as one app may.

    Args:
        service: The app's service.
        url: `TOSKA_EVENTS_URL`.
        locate: Finds the mesh, anew at each call.
    """

    def __init__(self, service: str, url: str, locate: Callable[[], Location]) -> None:
        self._service = service
        self._url = url
        self._locate = locate

    def connect(self) -> "AbstractAsyncContextManager[Transport]":
        """For `EventBus(connect=…)`.

        Raises:
            EventsUnavailable: The embedded log is wanted, and no mesh runs on this machine.
        """
        location = self._locate()
        if location.home is None and self._url.startswith("embedded://"):
            raise EventsUnavailable(
                "no mesh of this machine was found whose log carries events: start one (toska up), or set "
                "TOSKA_EVENTS_URL"
            )
        return open_transport(self._url, home=location.home, token=location.token, service=self._service)

    async def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """Send JSON to the events service, wherever the registry says that it is.

        Raises:
            UpstreamUnavailable: It is not listed.
            httpx.HTTPError: It does not answer.
        """
        location = self._locate()
        async with ConsulClient.open(location.url, token=location.token, tls=location.tls) as consul:
            entries, _ = await consul.health_service(EVENTS_SERVICE, passing=True)
        if not entries:
            raise UpstreamUnavailable(f"{EVENTS_SERVICE} is not listed")
        service = entries[0].service
        async with httpx.AsyncClient(timeout=_ANSWERS_WITHIN_S, trust_env=False) as http:
            return await http.post(
                f"http://{service.address}:{service.port}{path}",
                json=body,
                headers={"authorization": f"Bearer {location.token}"},
            )


def serve_asyncapi(bus: "EventBus", version: str) -> Callable[[Request], Response]:
    """The endpoint that describes what the app publishes and consumes."""

    def serve(_: Request) -> Response:
        from toska_common.events.asyncapi import build_asyncapi

        return JSONResponse(build_asyncapi(bus, version=version))

    return serve
