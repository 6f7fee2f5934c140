"""What the router tells of itself: which gateway runs which version, and how its sources are."""

from datetime import datetime

from pydantic import Field

from toska_common.contracts import Contract


class GatewayStatus(Contract):
    """A gateway as the router knows it from its polls."""

    name: str
    version: str = Field(default="", description="`Snapshot.version` of what it said to serve; empty: nothing yet")
    routes_version: str = ""
    up_to_date: bool = False
    waiting: bool = False
    last_seen: datetime
    applied_at: datetime | None = Field(default=None, description="When it acknowledged its version")
    applied_after_seconds: float | None = Field(
        default=None, description="How long that was after the router published it; absent if it was not its newest"
    )
    rejected: str = Field(default="", description="Why it refused `rejected_version` and goes on with its own")
    rejected_version: str = ""


class DocumentProblem(Contract):
    """One thing that is wrong in a routing file."""

    field: str
    reason: str
    line: int | None = None


class FileStatus(Contract):
    """The routing file: what was read of it last, and why what is in it now is not used, if it is not."""

    path: str
    loaded_at: datetime | None = None
    problems: tuple[DocumentProblem, ...] = ()


class RegistryStatus(Contract):
    """Whether the registry answers; while it does not, the endpoints known last stay."""

    connected: bool
    error: str = ""
    services: int = 0


class DatabaseStatus(Contract):
    """Where the API's changes go; while it does not answer, what is known goes on and changes are refused."""

    place: str = Field(description="SQLite in a file, or PostgreSQL's host, database and schema")
    connected: bool
    error: str = ""
    revision: int = Field(default=0, description="The newest one that is known here")
    problems: tuple[DocumentProblem, ...] = Field(
        default=(), description="Why that does not hold here: another router made it, and it does not fit our file"
    )


class RefusedOffer(Contract):
    """Routes that a service asks for in its metadata, and does not get."""

    service: str
    reasons: tuple[str, ...]


class RouterStatus(Contract):
    """The router in one look; `version` is empty until the registry was seen for the first time."""

    version: str = ""
    routes_version: str = ""
    routes: int = 0
    clusters: int = 0
    endpoints: int = 0
    gateways: int = 0
    policies: int = 0
    registry: RegistryStatus
    database: DatabaseStatus | None = None
    refused_offers: tuple[RefusedOffer, ...] = ()
    file: FileStatus | None = None
