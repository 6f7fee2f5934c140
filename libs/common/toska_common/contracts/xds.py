"""What the router tells of its xDS server: who is programmed, what they run, and what they refused."""

from datetime import datetime

from pydantic import Field

from toska_common.contracts import Contract
from toska_common.contracts.router import DocumentProblem


class XdsRefusal(Contract):
    """What a client refused, and why, in its own words."""

    node: str = ""
    at: datetime | None = None
    type_url: str
    version: str
    names: tuple[str, ...] = Field(default=(), description="Resources of the response; one alone is the wrong one")
    reason: str


class XdsType(Contract):
    """One type of resources on one stream."""

    type_url: str
    wildcard: bool = Field(description="Whether it asks for all of them")
    names: int = Field(description="How many it asks for by name")
    accepted_version: str = Field(description="The newest version that it took over; empty before the first")
    up_to_date: bool = Field(description="Whether it has answered everything that there is, be it by a refusal")
    refusals: tuple[XdsRefusal, ...] = ()


class XdsClient(Contract):
    """One stream."""

    node: str
    cluster: str = ""
    zone: str = ""
    user_agent: str = ""
    peer: str
    group: str = ""
    incremental: bool
    aggregated: bool
    connected_at: datetime
    up_to_date: bool
    types: tuple[XdsType, ...] = ()


class XdsLoad(Contract):
    """What clients report to have sent to a cluster, since the router started."""

    cluster: str
    requests: int = Field(description="That have ended")
    failures: int = Field(description="Of those")
    dropped: int = Field(default=0, description="That clients were told to drop, and so were never sent")


class XdsStatus(Contract):
    """The xDS server in one look."""

    listening: bool = False
    port: int = 0
    version: str = Field(default="", description="`Snapshot.version` of what is served")
    envoys_listen_on: tuple[str, ...] = Field(default=(), description="What Envoys are told to listen on")
    problems: tuple[DocumentProblem, ...] = Field(
        default=(), description="Why Envoys are not told the newest routing: what of it they cannot serve"
    )
    loads: tuple[XdsLoad, ...] = Field(default=(), description="Where clients report, by cluster")
    target_problems: tuple[DocumentProblem, ...] = Field(
        default=(), description="Which routes of a host gRPC's clients cannot follow; the host's last ones stay"
    )
    tls_problem: str = Field(
        default="", description="Why the changed files of TLS are not used; those that were read before are"
    )
    clients: tuple[XdsClient, ...] = ()
    refusals: tuple[XdsRefusal, ...] = Field(default=(), description="The latest, also of clients that are gone")
