"""One POST of one event: to an allowed address, signed, within its time, and without following a redirect."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
from toska_common import __version__
from toska_common.clients.guarded import GuardedResolver
from toska_common.clock import Clock
from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.event import Event
from toska_common.targets import TargetRules

from toska_events.webhooks.signing import message_id, signed_headers

GONE = 410
_MOST_CONNECTIONS = 200
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook's events go."""

    url: str
    secret: str
    timeout_s: float


class Sender:
    """Sends events; `open_sender` makes it. `rules` may be replaced as the mesh changes."""

    def __init__(self, clock: Clock) -> None:
        self.rules = TargetRules()
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MOST_CONNECTIONS, resolver=GuardedResolver(lambda: self.rules)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"toska-events/{__version__}"},
            trust_env=False,
        )

    async def send(self, event: Event, target: Target) -> int | str:
        """POST it; the status of the answer, or why there is none."""
        refusal = refusal_of(target.url, self.rules)
        if refusal is not None:
            return refusal
        body = cloudevents.to_structured(event)
        headers = {
            "content-type": cloudevents.STRUCTURED,
            **signed_headers(target.secret, message_id(event), self._clock.now(), body),
        }
        timeout = aiohttp.ClientTimeout(total=target.timeout_s)
        try:
            async with self._session.post(
                target.url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return answer.status
        except TimeoutError:
            return f"no answer within {target.timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The type alone: what it says may hold the URL, and that a secret.
            return f"it could not be sent: {type(error).__name__}"

    async def aclose(self) -> None:
        """Close its connections."""
        await self._session.close()


@asynccontextmanager
async def open_sender(clock: Clock) -> AsyncGenerator[Sender]:
    """A sender for the block."""
    sender = Sender(clock)
    try:
        yield sender
    finally:
        await sender.aclose()


def refusal_of(url: str, rules: TargetRules) -> str | None:
    """Why the address in a URL must not be connected to; `None` for a name, which is checked once it is resolved."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return None
    return rules.refusal(host, parts.port or _PORTS[parts.scheme])


def require_allowed(url: str, rules: TargetRules) -> None:
    """Refuse a URL at once whose address is written out.

    Raises:
        InvalidInput: It must not be connected to.
    """
    refusal = refusal_of(url, rules)
    if refusal is not None:
        raise InvalidInput(f"url: {refusal}", problems=[{"field": "body.url", "reason": refusal}])
