"""Which sources of keys a routing table names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from toska_common.contracts.routing import Jwt, RouteTable
from toska_common.routing.memory import Memo
from toska_common.routing.problems import Finding, Location, format_location

from toska_gateway.wire import plain
from toska_gateway.worker.auth.sources import source_name

_NAMES: Final = Memo[Jwt, str]()


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where an issuer's keys come from: one of `url`, `file` and `inline`.

    Attributes:
        name: As workers call it.
        at: Where the first policy that names it stands in the routing.
    """

    name: str
    at: Location
    algorithms: tuple[str, ...]
    url: str | None
    file: str | None
    inline: Mapping[str, Any] | None = field(repr=False)
    ca: str | None
    refresh: timedelta

    @property
    def title(self) -> str:
        """As people call it: without what may be a secret in a query."""
        if self.url is not None:
            parts = urlsplit(self.url)
            return f"{parts.scheme}://{parts.netloc}{parts.path}"
        return self.file or f"{format_location(self.at)}.jwks"


class KeysRefused(Exception):
    """Keys that a table names by itself, and that cannot be used; `findings` has each with its place."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("; ".join(f"{problem['field']}: {problem['reason']}" for problem in self.problems))

    @property
    def problems(self) -> list[dict[str, str]]:
        """The findings, as problem documents and logs name them."""
        return [{"field": format_location(one.location), "reason": one.reason} for one in self.findings]


def sources_of(table: RouteTable) -> dict[str, KeySource]:
    """Every source that a table names, by its name."""
    found: dict[str, KeySource] = {}
    for index, route in enumerate(table.routes):
        auth = route.policies.auth
        if auth is None:
            continue
        jwt = auth.jwt
        name = _NAMES.get(jwt) or _NAMES.put(jwt, source_name(plain(jwt.model_dump())))
        if name not in found:
            found[name] = KeySource(
                name=name,
                at=("routes", index, "policies", "auth", "jwt"),
                algorithms=jwt.algorithms,
                url=jwt.jwks_url,
                file=jwt.jwks_file,
                inline=None if jwt.jwks is None else plain(jwt.jwks),
                ca=jwt.jwks_ca,
                refresh=jwt.jwks_refresh,
            )
    return found
