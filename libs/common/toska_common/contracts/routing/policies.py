"""What happens to a request on its way along a route."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from toska_common.contracts import Document
from toska_common.contracts.routing.access import HttpsSwitch, IpRules
from toska_common.contracts.routing.auth import Auth
from toska_common.contracts.routing.browsers import Cors, SecuritySwitch
from toska_common.contracts.routing.caching import ResponseCache
from toska_common.contracts.routing.compression import Compression
from toska_common.contracts.routing.experiments import Fault, Mirror
from toska_common.contracts.routing.filters import FilterUse
from toska_common.contracts.routing.resilience import Fallback, Hedge, RetryPolicy
from toska_common.contracts.routing.rewriting import Rewrite
from toska_common.contracts.routing.seeing import AccessLogPolicy
from toska_common.contracts.routing.versioning import Versions
from toska_common.contracts.routing.words import FRAMING, HeaderName, HeaderValue
from toska_common.placeholders import PLACEHOLDERS, split_placeholders
from toska_common.units import Duration, Size


class HeaderEdits(Document):
    """Changes to a message's headers: `remove`, then `set` (replaces), then `add`.

    In values, `{client_ip}`, `{host}`, `{method}`, `{path}`, `{request_id}`, `{route}` and `{scheme}` stand for what
    the request has.
    """

    set: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    add: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict[str, str])
    remove: tuple[HeaderName, ...] = ()

    @model_validator(mode="after")
    def _leaves_framing_alone(self) -> Self:
        wrong = sorted(FRAMING.intersection((*self.set, *self.add, *self.remove)))
        if wrong:
            raise ValueError(f"{', '.join(wrong)} is the gateway's own and cannot be changed")
        return self

    @model_validator(mode="after")
    def _known_placeholders(self) -> Self:
        for name, value in (*self.set.items(), *self.add.items()):
            for _, placeholder in split_placeholders(value):
                if placeholder and placeholder not in PLACEHOLDERS:
                    known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                    raise ValueError(f"{name}: there is no {{{placeholder}}}; known are {known}")
        return self


class HeaderRules(Document):
    """Header changes towards the upstream and towards the caller."""

    request: HeaderEdits = HeaderEdits()
    response: HeaderEdits = HeaderEdits()


class BodyLimit(Document):
    """Bounds of the request body."""

    max_bytes: Size = Field(default=0, ge=0, description="0 is unbounded")


class RateLimit(Document):
    """How many requests are served; more are refused with 429 until the allowance has refilled, evenly (GCRA)."""

    requests: int = Field(ge=1, le=10_000_000)
    per: Duration = timedelta(seconds=1)
    burst: int | None = Field(default=None, ge=1, le=10_000_000, description="At once; default: `requests`")
    key: str = Field(
        default="client_ip",
        pattern=r"^(client_ip|route|header:[!#$%&'*+.^_`|~0-9a-z-]{1,256}|claim:.{1,256})$",
        description="Whose allowance it is: client_ip, header:NAME (lower-case), claim:NAME of a verified token, or "
        "route: everybody's together",
    )
    scope: Literal["worker", "machine", "mesh"] = Field(
        default="machine",
        description="mesh: all gateways that share TOSKA_CACHE_URL count together; machine: exact over all workers; "
        "worker: each has an allowance of its own",
    )

    @model_validator(mode="after")
    def _is_a_rate(self) -> Self:
        if not timedelta(milliseconds=1) <= self.per <= timedelta(days=31):
            raise ValueError("per lies between 1ms and 31 days")
        return self


def _one_or_more(value: object) -> object:
    if value is None:
        return ()
    return (cast("object", value),) if isinstance(value, Mapping | RateLimit) else value


_ONE_OR_MORE = BeforeValidator(_one_or_more, json_schema_input_type=RateLimit | tuple[RateLimit, ...] | None)


class Policies(Document):
    """What happens to a request on its way; each part costs only the routes that use it."""

    timeout: Duration | None = Field(
        default=None, description="From the request's head to the response's last byte; of a tunnel, until it stands"
    )
    connect_timeout: Duration = timedelta(seconds=2)
    response_timeout: Duration = Field(default=timedelta(seconds=60), description="Until the head of the response")
    idle_timeout: Duration = Field(
        default=timedelta(seconds=60), description="Between two bytes of a body; of a tunnel: 10 times"
    )
    retry: RetryPolicy = RetryPolicy()
    hedge: Hedge | None = None
    fallback: Fallback | None = None
    ip: IpRules | None = None
    require_https: HttpsSwitch = Field(default=None, description="true is all defaults")
    cors: Cors | None = None
    security_headers: SecuritySwitch = Field(default=None, description="true is all defaults")
    versions: Versions | None = None
    auth: Auth | None = Field(default=None, description="Only requests with a token that is believed pass")
    rate_limit: Annotated[tuple[RateLimit, ...], _ONE_OR_MORE] = Field(
        default=(), max_length=4, description="One limit or several: all have to allow a request"
    )
    fault: Fault | None = None
    watch: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Set by rollouts and experiments, and by nobody else: what they count under",
    )
    mirror: Mirror | None = None
    rewrite: Rewrite | None = None
    headers: HeaderRules = HeaderRules()
    body: BodyLimit = BodyLimit()
    access_log: AccessLogPolicy | None = Field(default=None, description="Other than the server's; sample: 0 for none")
    cache: ResponseCache | None = None
    compress: Compression | None = None
    filters: tuple[FilterUse, ...] = Field(
        default=(), max_length=16, description="Requests pass them in this order, responses in the opposite one"
    )
    upgrade: tuple[Literal["websocket"], ...] = ()
    escaped_slashes: Literal["reject", "keep"] = Field(
        default="reject", description="What becomes of %2F and %5C in a path: 400, or passed on as they came"
    )

    @field_validator("rate_limit")
    @classmethod
    def _each_once(cls, value: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
        if any(limit in value[:number] for number, limit in enumerate(value)):
            raise ValueError("a limit stands twice")
        return value

    @field_validator("timeout", "connect_timeout", "response_timeout", "idle_timeout")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta():
            raise ValueError("a timeout is longer than 0s; leave it out for the default")
        return value

    def check_complete(self) -> None:
        """Let policies pass that can stand alone; part of them may come from another name.

        Raises:
            ValueError: Something that they need is missing.
        """
        if self.auth is None and any(limit.key.startswith("claim:") for limit in self.rate_limit):
            raise ValueError("policies.rate_limit: by a claim needs auth: without it no token is verified")

    def named_clusters(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Every cluster that the policies lead to, with where in them its name stands."""
        for index, name in enumerate(self.fault.clusters if self.fault is not None else ()):
            yield ("fault", "clusters", index), name
        for name, version in self.versions.known.items() if self.versions is not None else ():
            if version.cluster is not None:
                yield ("versions", "known", name, "cluster"), version.cluster
        if self.mirror is not None:
            yield ("mirror", "cluster"), self.mirror.cluster
        if self.fallback is not None and self.fallback.cluster is not None:
            yield ("fallback", "cluster"), self.fallback.cluster


class NamedPolicy(Policies):
    """Policies under a name, by which routes refer to them in `policies_from`."""

    for_services: bool = Field(
        default=False, description="Whether routes that services ask for by themselves may name it, too"
    )
