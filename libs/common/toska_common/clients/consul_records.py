"""What Consul's HTTP API says about services, checks and keys, as immutable records under names of our own.

Source: https://developer.hashicorp.com/consul/api-docs. Decoding takes what older and newer Consuls leave out as its
zero value, as Consul's own Go client does.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from toska_common.contracts.discovery import Health
from toska_common.units import format_duration


@dataclass(frozen=True, slots=True)
class TTLCheck:
    """A check that is critical unless somebody reports otherwise once every `ttl`.

    Attributes:
        ttl: How long a report is good for.
        check_id: Consul's default is `service:<service id>`.
        status: What it starts as; Consul's own default is critical.
        deregister_after: How long it may stay critical before its service is removed; Consul's floor is one minute.
    """

    ttl: timedelta
    check_id: str = ""
    name: str = ""
    notes: str = ""
    status: Health = Health.PASSING
    deregister_after: timedelta | None = None

    def encode(self) -> dict[str, Any]:
        """The `Check` of a registration."""
        body: dict[str, Any] = {"TTL": format_duration(self.ttl), "Status": self.status.value}
        if self.check_id:
            body["CheckID"] = self.check_id
        if self.name:
            body["Name"] = self.name
        if self.notes:
            body["Notes"] = self.notes
        if self.deregister_after is not None:
            body["DeregisterCriticalServiceAfter"] = format_duration(self.deregister_after)
        return body


@dataclass(frozen=True, slots=True)
class ServiceRegistration:
    """An instance to be listed by the agent; without an `id` Consul takes the name."""

    name: str
    id: str = ""
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    weight: int = 1
    checks: tuple[TTLCheck, ...] = ()

    def encode(self) -> dict[str, Any]:
        """The body of `PUT /v1/agent/service/register`."""
        return {
            "ID": self.id or self.name,
            "Name": self.name,
            "Address": self.address,
            "Port": self.port,
            "Tags": list(self.tags),
            "Meta": dict(self.meta),
            "Weights": {"Passing": self.weight, "Warning": 1},
            "Checks": [check.encode() for check in self.checks],
        }


@dataclass(frozen=True, slots=True)
class Node:
    """A machine (an agent) of the catalog."""

    name: str
    address: str
    id: str = ""
    datacenter: str = ""

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "Node":
        return cls(
            name=body.get("Node") or "",
            address=body.get("Address") or "",
            id=body.get("ID") or "",
            datacenter=body.get("Datacenter") or "",
        )


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """One instance; `address` is empty if it is its node's."""

    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict[str, str])
    weight: int = 1
    create_index: int = 0
    modify_index: int = 0

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "ServiceInstance":
        """From the `Service` of `health/service` and the values of `agent/services`."""
        weights: Mapping[str, int] = body.get("Weights") or {}
        return cls(
            id=body["ID"],
            service=body["Service"],
            address=body.get("Address") or "",
            port=body.get("Port") or 0,
            tags=tuple(body.get("Tags") or ()),
            meta=body.get("Meta") or {},
            weight=weights.get("Passing", 1),
            create_index=body.get("CreateIndex") or 0,
            modify_index=body.get("ModifyIndex") or 0,
        )


@dataclass(frozen=True, slots=True)
class Check:
    """A check and its last verdict; `service_id` is empty for a check of the node."""

    id: str
    status: Health
    name: str = ""
    node: str = ""
    service_id: str = ""
    service: str = ""
    output: str = ""
    notes: str = ""
    modify_index: int = 0

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "Check":
        return cls(
            id=body["CheckID"],
            status=_health(body["Status"]),
            name=body.get("Name") or "",
            node=body.get("Node") or "",
            service_id=body.get("ServiceID") or "",
            service=body.get("ServiceName") or "",
            output=body.get("Output") or "",
            notes=body.get("Notes") or "",
            modify_index=body.get("ModifyIndex") or 0,
        )


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """An instance with its node and its checks, those of the node included."""

    node: Node
    service: ServiceInstance
    checks: tuple[Check, ...] = ()

    @property
    def address(self) -> str:
        """Where the instance answers: its own address, or its node's if it has none."""
        return self.service.address or self.node.address

    @property
    def health(self) -> Health:
        """The worst verdict of all checks, as Consul aggregates it; passing without any."""
        return worst_health(check.status for check in self.checks)

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "ServiceEntry":
        return cls(
            node=Node.decode(body["Node"]),
            service=ServiceInstance.decode(body["Service"]),
            checks=tuple(Check.decode(check) for check in body.get("Checks") or ()),
        )


@dataclass(frozen=True, slots=True)
class CatalogService:
    """An instance and its node as the catalog lists them, without checks."""

    node: Node
    service: ServiceInstance

    @property
    def address(self) -> str:
        """Where the instance answers: its own address, or its node's if it has none."""
        return self.service.address or self.node.address

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "CatalogService":
        weights: Mapping[str, int] = body.get("ServiceWeights") or {}
        return cls(
            node=Node.decode(body),
            service=ServiceInstance(
                id=body["ServiceID"],
                service=body["ServiceName"],
                address=body.get("ServiceAddress") or "",
                port=body.get("ServicePort") or 0,
                tags=tuple(body.get("ServiceTags") or ()),
                meta=body.get("ServiceMeta") or {},
                weight=weights.get("Passing", 1),
                create_index=body.get("CreateIndex") or 0,
                modify_index=body.get("ModifyIndex") or 0,
            ),
        )


@dataclass(frozen=True, slots=True)
class KVPair:
    """A key and its value.

    Attributes:
        lock_index: Counts its lock's holders, and so is a fencing value for each of them.
        session: Who holds its lock; empty for nobody.
    """

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0
    lock_index: int = 0
    session: str = ""

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "KVPair":
        return cls(
            key=body["Key"],
            value=base64.b64decode(body.get("Value") or ""),
            flags=body.get("Flags") or 0,
            create_index=body.get("CreateIndex") or 0,
            modify_index=body.get("ModifyIndex") or 0,
            lock_index=body.get("LockIndex") or 0,
            session=body.get("Session") or "",
        )


@dataclass(frozen=True, slots=True)
class AgentSelf:
    """The agent that answers."""

    node: str
    datacenter: str
    version: str
    server: bool

    @classmethod
    def decode(cls, body: Mapping[str, Any]) -> "AgentSelf":
        config: Mapping[str, Any] = body["Config"]
        return cls(
            node=config.get("NodeName") or "",
            datacenter=config.get("Datacenter") or "",
            version=config.get("Version") or "",
            server=bool(config.get("Server")),
        )


_VERDICTS = {verdict.value: verdict for verdict in Health}
_ORDER = {Health.PASSING: 0, Health.WARNING: 1, Health.CRITICAL: 2}


def worst_health(verdicts: Iterable[Health]) -> Health:
    """The worst of an iterable of `Health`; passing if it is empty."""
    return max(verdicts, key=_ORDER.__getitem__, default=Health.PASSING)


def _health(status: str) -> Health:
    # "maintenance" and whatever a newer Consul may add: not fit for traffic.
    return _VERDICTS.get(status, Health.CRITICAL)
