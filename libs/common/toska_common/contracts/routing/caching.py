"""Keeping responses (RFC 9111): what a route's operator may say beside what responses say of themselves."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.words import CookieName, HeaderName
from toska_common.units import Duration, Size

ClaimName = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,256}$")]


class CacheKey(Document):
    """What divides a route's responses further than their URL and `Vary` do, such as by user or by tenant.

    It never makes a response storable that would not be without it.
    """

    headers: tuple[HeaderName, ...] = ()
    cookies: tuple[CookieName, ...] = Field(default=(), description="And no other cookie tells users apart")
    claims: tuple[ClaimName, ...] = Field(
        default=(), description="Of the verified token; a request without them is not served from the cache"
    )


class ResponseCache(Document):
    """Responses are kept as RFC 9111 says of shared caches: never `private` ones, nor those that set cookies."""

    max_entry_bytes: Size = Field(default=1 << 20, ge=1, description="Longer bodies are not kept")
    default_ttl: Duration = Field(
        default=timedelta(), description="Life of responses (200, 203, 204, 300, 301, 308) that say nothing of it"
    )
    heuristic_percent: float = Field(
        default=0.0, ge=0, le=100, description="Or this part of the time since their Last-Modified, up to a day"
    )
    stale_while_revalidate: Duration = Field(
        default=timedelta(), description="So long stale ones are served while they are asked for anew in the background"
    )
    stale_if_error: Duration = Field(
        default=timedelta(), description="So long stale ones are served while the upstream fails"
    )
    methods: tuple[Literal["GET", "HEAD"], ...] = Field(
        default=("GET", "HEAD"), min_length=1, description="Requests that are answered from the cache"
    )
    statuses: tuple[int, ...] = Field(
        default=(200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501),
        min_length=1,
        description="Of which responses are kept; but for the first ones of default_ttl, only if they say for how long",
    )
    vary_ignore: tuple[HeaderName, ...] = Field(
        default=(), description="Fields in Vary by which responses are not told apart"
    )
    key: CacheKey = CacheKey()
    ignore_cookies: bool = Field(
        default=False,
        description="Requests' cookies change nothing in responses; else those to requests with cookies are kept only "
        "if they say public, s-maxage or Vary: Cookie",
    )
    strip_set_cookie: bool = Field(
        default=False, description="Keep also what sets cookies, without them; else it is not kept"
    )
    request_directives: Literal["obey", "ignore"] = Field(
        default="obey", description="ignore: Cache-Control of requests, by which clients can go past the cache"
    )
    coalesce_timeout: Duration = Field(
        default=timedelta(seconds=5),
        description="How long a request waits for the response that another one has asked for; 0s: never",
    )

    forget_on_events: bool = Field(
        default=False,
        description="Events cache.responses.outdated, which every service may publish, end what is kept of this route",
    )

    @field_validator("statuses")
    @classmethod
    def _final_and_whole(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [status for status in value if not 200 <= status <= 599 or status in (206, 304)]
        if wrong:
            raise ValueError(f"{', '.join(map(str, wrong))} cannot be kept: from 200 to 599, without 206 and 304")
        return value

    @field_validator("vary_ignore")
    @classmethod
    def _tells_users_apart(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = sorted({"authorization", "cookie"}.intersection(value))
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} cannot be ignored: one user's response would be another's")
        return value


class CacheMemory(Document):
    """Where responses are kept: in each worker's memory, and in Redis if `TOSKA_CACHE_URL` names one."""

    memory: Size = Field(default=64 << 20, ge=1 << 20, description="Of each worker, overhead included")
    shared_wait: Duration = Field(
        default=timedelta(milliseconds=10),
        description="How long a request waits for Redis at most",
    )
