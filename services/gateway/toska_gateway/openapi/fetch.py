"""Fetching a document from an instance, and reading it."""

import json
import math
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from toska_common.errors import UpstreamError

from toska_gateway.instance_calls import InstanceCaller, Question, Refusal

if TYPE_CHECKING:
    import aiohttp

TIMEOUT: Final = timedelta(seconds=3)


def allow_any(_address: str, _port: int) -> str | None:
    """For the mesh's own services, whose addresses come from settings."""
    return None


class DocumentFetcher:
    """Fetches documents over one session."""

    def __init__(self, session: "aiohttp.ClientSession", *, timeout: timedelta = TIMEOUT) -> None:
        self._caller = InstanceCaller(session, timeout=timeout)

    async def fetch(self, host: str, port: int, path: str, refusal: Refusal, *, token: str = "") -> bytes:
        """The bytes at `path` of an instance; raises as `InstanceCaller.ask`.

        Args:
            host: Name or address, as the instance is registered.
            port: Its port.
            path: A path on that address, with a query perhaps.
            refusal: Asked about the very address that is connected to.
            token: Sent as a bearer; only ever to the mesh's own services.

        Raises:
            UpstreamError: It cannot be had; the reason is for a person.
        """
        answer = await self._caller.ask(host, port, Question("GET", path, token=token), refusal)
        if answer.status != HTTPStatus.OK:
            raise UpstreamError(f"it answered with status {answer.status}")
        return answer.content


def parse_document(content: bytes) -> Any:
    """JSON in the strict sense, as it is going to be sent on.

    Raises:
        UpstreamError: It is something else.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UpstreamError(f"it is not JSON: {reason[:200]}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
