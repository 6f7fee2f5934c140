"""Everything an operator can tell discovery, read from `TOSKA_DISCOVERY_*`."""

import socket
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from toska_common.lists import CommaSeparated
from toska_common.settings import ServiceSettings, registry_http_url
from toska_common.units import Duration

from toska_discovery.check import CheckKind

NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,126}[A-Za-z0-9])?$")]

DnsDomain = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,3}$")]


def _recursor(value: Any) -> Any:
    parts = urlsplit(f"//{value}") if isinstance(value, str) else None
    if parts is None:
        return value
    host = parts.hostname or ""
    if host.count(":") == 0 and value.count(":") > 1 and not value.startswith("["):
        host, port = value, 53  # an IPv6 address by itself
    else:
        port = parts.port or 53
    return str(ip_address(host)), port


DnsRecursor = Annotated[tuple[str, int], BeforeValidator(_recursor)]


def _host_name() -> str:
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in socket.gethostname())
    return name.strip("-")[:128] or "toska"


class Settings(ServiceSettings):
    """Settings of the discovery service; the defaults run a registry for one machine."""

    model_config = SettingsConfigDict(env_prefix="TOSKA_DISCOVERY_")

    port: int = Field(default=8101, ge=0, le=65535, description="Of the REST API")
    consul_port: int = Field(default=8500, ge=0, le=65535, description="Of the Consul HTTP API")
    registry_acl: bool = Field(
        default=False,
        validation_alias="TOSKA_REGISTRY_ACL",
        description="Whether the Consul API needs a token for reads too, also on loopback, and tells of tokens",
    )
    dns_port: int = Field(default=8600, ge=-1, le=65535, description="Of DNS, on UDP and TCP; -1 for none")
    dns_domain: DnsDomain = Field(default="consul", description="What every name in DNS ends in")
    dns_only_passing: bool = Field(default=False, description="Leave instances with a warning out of DNS")
    dns_node_ttl: Duration = Field(default=timedelta(), description="How long others may keep answers about nodes")
    dns_service_ttl: Annotated[Mapping[str, Duration], NoDecode] = Field(
        default={}, description="The same of services, by name or prefix: orders=5s,web-*=10s,*=1s"
    )
    dns_udp_answers: int = Field(
        default=3, ge=0, description="Most records over UDP for those without EDNS; 0 for what fits"
    )
    dns_truncate: bool = Field(default=False, description="Say of answers that were cut that they were")
    dns_recursors: Annotated[tuple[DnsRecursor, ...], NoDecode, CommaSeparated] = Field(
        default=(), description="Who to ask for names of others: addresses, comma-separated, with :port unless 53"
    )
    grpc_port: int = Field(default=18101, ge=-1, le=65535, description="Of the gRPC service; -1 for none")
    lease_ttl: Duration = Field(default=timedelta(seconds=15), description="Life of a lease that asks for none")
    removal_after: Duration = Field(
        default=timedelta(seconds=60), description="How long an instance may be critical before it is removed"
    )
    sweep_interval: Duration = Field(
        default=timedelta(milliseconds=250), description="How often lapsed leases are looked for"
    )
    max_instances: int = Field(default=200_000, ge=1, description="Instances listed at a time; more are refused")
    max_watchers: int = Field(default=10_000, ge=1, description="Blocked queries at a time; more get 429")
    max_probes: int = Field(default=256, ge=1, description="Probes of checks under way at a time; more wait")
    watch_ports: bool = Field(
        default=True,
        description="Turn an instance of this machine critical when its port closes, before its lease lapses (Linux)",
    )
    enable_script_checks: bool = Field(
        default=False, description="Run checks' scripts; whoever may register can then run programs as discovery"
    )
    datacenter: NodeName = Field(default="dc1", description="Consul's name for where this registry is")
    node_name: NodeName = Field(default_factory=_host_name, description="Consul's name for this machine")
    advertise_address: str = Field(
        default="",
        validation_alias="TOSKA_ADVERTISE_ADDRESS",
        description="Where others reach this machine; the bound address if left out",
    )

    @field_validator("dns_service_ttl", mode="before")
    @classmethod
    def _split_ttls(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if not all(name and separator for name, separator, _ in pairs):
            raise ValueError("write name=duration, separated by commas")
        return {name: duration for name, _, duration in pairs}

    @field_validator("lease_ttl", "removal_after", "sweep_interval")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta():
            raise ValueError("must be longer than 0s")
        return value

    @property
    def check_kinds(self) -> frozenset[CheckKind]:
        """The kinds of checks that may be registered."""
        scripts = {CheckKind.SCRIPT} if self.enable_script_checks else set[CheckKind]()
        return frozenset({CheckKind.TTL, CheckKind.HTTP, CheckKind.TCP, CheckKind.GRPC, CheckKind.ALIAS} | scripts)

    @property
    def is_embedded(self) -> bool:
        """Whether discovery is the registry itself, rather than a face of a real Consul."""
        return self.registry_url.startswith("embedded:")

    @property
    def own_address(self) -> str:
        """The address of this machine, for its node and for its own registration."""
        return self.advertise_address or {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(
            self.host, self.host
        )

    @property
    def registry_api_url(self) -> str:
        """Base URL of Consul's HTTP API: a real Consul's, or that of the embedded registry."""
        host = f"[{self.own_address}]" if ":" in self.own_address else self.own_address
        return registry_http_url(self.registry_url, f"http://{host}:{self.consul_port}")
