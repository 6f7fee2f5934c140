"""One POST of one event: to an allowed address, signed, within its time, and without following a redirect."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
from toska_common import __version__
from toska_common.clients.guarded import guarded_connector
from toska_common.clock import Clock
from toska_common.errors import InvalidInput
from toska_common.events import cloudevents
from toska_common.events.event import Event
from toska_common.targets import TargetRules

from toska_events.webhooks.agreeing import ORIGIN, Agreement, question, read_agreement
from toska_events.webhooks.pacing import ASKING, read_retry_after
from toska_events.webhooks.signing import message_id, signed_headers

GONE = 410
_MOST_CONNECTIONS = 200
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook's events go.

    Attributes:
        origin: The name that the receiver agreed to; empty if it was not asked.
    """

    url: str
    secret: str
    timeout_s: float
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        status: Of the answer; 0 if there is none.
        failure: Why there is none.
        wait_s: For how long the receiver wants no more.
    """

    status: int = 0
    failure: str = ""
    wait_s: float = 0.0

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has the event."""
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """Why it has not."""
        return self.failure or f"the webhook answered {self.status}"


class Sender:
    """Sends events; `open_sender` makes it. `rules` may be replaced as the mesh changes."""

    def __init__(self, clock: Clock, rules: TargetRules) -> None:
        self.rules = rules
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=guarded_connector(lambda: self.rules, limit=_MOST_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"toska-events/{__version__}"},
            trust_env=False,
        )

    async def send(self, event: Event, target: Target) -> Outcome:
        """POST it."""
        body = cloudevents.to_structured(event)
        headers = {
            "content-type": cloudevents.STRUCTURED,
            **signed_headers(target.secret, message_id(event), self._clock.now(), body),
            **({ORIGIN: target.origin} if target.origin else {}),
        }
        answer = await self._ask("POST", target.url, target.timeout_s, headers, body)
        if isinstance(answer, str):
            return Outcome(failure=answer)
        wait_s = read_retry_after(answer.headers.get("retry-after"), self._clock.now())
        return Outcome(answer.status, wait_s=wait_s if answer.status in ASKING else 0.0)

    async def agree(self, url: str, origin: str, rate: int | None, timeout_s: float) -> Agreement | str:
        """Ask a receiver for its agreement; the reason if it does not give any."""
        answer = await self._ask("OPTIONS", url, timeout_s, question(origin, rate), None)
        return answer if isinstance(answer, str) else read_agreement(answer.headers, origin, rate)

    async def _ask(
        self, method: str, url: str, timeout_s: float, headers: dict[str, str], body: bytes | None
    ) -> aiohttp.ClientResponse | str:
        """The head of the answer, whose body is nobody's concern, or why there is none."""
        refusal = refusal_of(url, self.rules)
        if refusal is not None:
            return refusal
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                return answer
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The type alone: what it says may hold the URL, and that a secret.
            return f"it could not be sent: {type(error).__name__}"

    async def aclose(self) -> None:
        """Close its connections."""
        await self._session.close()


@asynccontextmanager
async def open_sender(clock: Clock, rules: TargetRules | None = None) -> AsyncGenerator[Sender]:
    """A sender for the block."""
    sender = Sender(clock, rules or TargetRules())
    try:
        yield sender
    finally:
        await sender.aclose()


def refusal_of(url: str, rules: TargetRules) -> str | None:
    """Why the address in a URL must not be connected to; `None` for a name, which is checked once it is resolved."""
    parts = urlsplit(url)
    address = _address(parts.hostname or "")
    return None if address is None else rules.refusal(address, parts.port or _PORTS[parts.scheme])


def _address(host: str) -> str | None:
    """The IP address that a host stands for; `None` if it is a name.

    What C libraries read as IPv4 is one, too: `127.1`, `2130706433` and `0x7f.1` are 127.0.0.1.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def require_allowed(url: str, rules: TargetRules) -> None:
    """Refuse a URL at once whose address is written out.

    Raises:
        InvalidInput: It must not be connected to.
    """
    refusal = refusal_of(url, rules)
    if refusal is not None:
        raise InvalidInput(f"url: {refusal}", problems=[{"field": "body.url", "reason": refusal}])
