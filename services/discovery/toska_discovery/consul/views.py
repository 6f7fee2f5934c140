"""Nodes, instances and checks in Consul's field names and order."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toska_discovery.check import Check
from toska_discovery.consul.request import encode
from toska_discovery.instance import Instance, ServiceDefinition

CONSUL = "consul"
"""The registry's own service."""
SEGMENT = {"consul-network-segment": ""}
"""The one piece of metadata that a Consul node has by itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """The one node of the registry: this machine.

    Attributes:
        index: When it joined, which is when the registry was opened.
        port: Of the Consul API, where Consul has the port of its servers.
    """

    id: str
    name: str
    address: str
    datacenter: str
    port: int
    index: int

    @property
    def body(self) -> dict[str, Any]:
        """The node as `catalog/nodes` and `health/service` show it."""
        return {**self._head, "Meta": SEGMENT, "CreateIndex": self.index, "ModifyIndex": self.index}

    @property
    def _head(self) -> dict[str, Any]:
        return {
            "ID": self.id,
            "Node": self.name,
            "Address": self.address,
            "Datacenter": self.datacenter,
            "TaggedAddresses": self.tagged_addresses,
        }

    @property
    def tagged_addresses(self) -> dict[str, str]:
        """Its address, by tag."""
        family = "ipv6" if ":" in self.address else "ipv4"
        return dict.fromkeys(("lan", f"lan_{family}", "wan", f"wan_{family}"), self.address)

    @property
    def serf_health(self) -> dict[str, Any]:
        """The node's own check; it passes for as long as there is somebody to ask."""
        return {
            "Node": self.name,
            "CheckID": "serfHealth",
            "Name": "Serf Health Status",
            "Status": "passing",
            "Notes": "",
            "Output": "Agent alive and reachable",
            "ServiceID": "",
            "ServiceName": "",
            "ServiceTags": [],
            "Type": "",
            "Definition": {},
            "CreateIndex": self.index,
            "ModifyIndex": self.index,
        }

    @property
    def consul_service(self) -> ServiceDefinition:
        """The registry as a service of its own catalog."""
        return ServiceDefinition(id=CONSUL, name=CONSUL, port=self.port)

    def catalog_entry(self, service: ServiceDefinition, create_index: int, modify_index: int) -> dict[str, Any]:
        """An instance as `catalog/service` shows it."""
        return {
            **self._head,
            "NodeMeta": SEGMENT,
            "ServiceKind": "",
            "ServiceID": service.id,
            "ServiceName": service.name,
            "ServiceTags": service.tags,
            "ServiceAddress": service.address,
            **_tagged("ServiceTaggedAddresses", service),
            "ServiceWeights": _weights(service),
            "ServiceMeta": service.meta,
            "ServicePort": service.port,
            "ServiceEnableTagOverride": service.enable_tag_override,
            "ServiceProxy": {"MeshGateway": {}, "Expose": {}},
            "ServiceConnect": {},
            "CreateIndex": create_index,
            "ModifyIndex": modify_index,
        }

    def health_entry(self, instance: Instance, checks: Mapping[str, Check]) -> dict[str, Any]:
        """An instance as `health/service` shows it, on a node with `checks` of its own."""
        return {
            "Node": self.body,
            "Service": health_service(instance.service, instance.create_index, instance.modify_index),
            "Checks": [self.serf_health, *self.checks(None, checks), *self.checks(instance, instance.checks)],
        }

    def checks(self, instance: Instance | None, checks: Mapping[str, Check]) -> list[dict[str, Any]]:
        """Checks of an instance, or of the node, as the catalog shows them."""
        return [
            self.check(instance, check, check.output, check.create_index, check.modify_index)
            for _, check in sorted(checks.items())
        ]

    def check(
        self, instance: Instance | None, check: Check, output: str, create_index: int, modify_index: int
    ) -> dict[str, Any]:
        """One check; the agent's endpoints show the latest output and no indexes."""
        return {
            "Node": self.name,
            "CheckID": check.definition.id,
            "Name": check.definition.name,
            "Status": check.status.value,
            "Notes": check.definition.notes,
            "Output": output,
            "ServiceID": "" if instance is None else instance.service.id,
            "ServiceName": "" if instance is None else instance.service.name,
            "ServiceTags": () if instance is None else instance.service.tags,
            "Type": check.definition.kind.value,
            "Definition": {},
            "CreateIndex": create_index,
            "ModifyIndex": modify_index,
        }


def health_service(service: ServiceDefinition, create_index: int, modify_index: int) -> dict[str, Any]:
    """The `Service` of `health/service`."""
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": service.tags,
        "Address": service.address,
        **_tagged("TaggedAddresses", service),
        "Meta": service.meta,
        "Port": service.port,
        "Weights": _weights(service),
        "EnableTagOverride": service.enable_tag_override,
        "Proxy": {"MeshGateway": {}, "Expose": {}},
        "Connect": {},
        "CreateIndex": create_index,
        "ModifyIndex": modify_index,
    }


def agent_service(service: ServiceDefinition) -> dict[str, Any]:
    """An instance as `agent/services` shows it."""
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": service.tags,
        "Meta": service.meta,
        "Port": service.port,
        "Address": service.address,
        **_tagged("TaggedAddresses", service),
        "Weights": _weights(service),
        "EnableTagOverride": service.enable_tag_override,
    }


def content_hash(body: Mapping[str, Any]) -> str:
    """What stands for a content in `X-Consul-ContentHash`: 16 hexadecimal digits, as in Consul."""
    return hashlib.sha256(encode(body)).hexdigest()[:16]


def _weights(service: ServiceDefinition) -> dict[str, int]:
    passing, warning = service.weights
    return {"Passing": passing, "Warning": warning}


def _tagged(name: str, service: ServiceDefinition) -> dict[str, Any]:
    tagged = {tag: {"Address": host, "Port": port} for tag, (host, port) in sorted(service.tagged_addresses.items())}
    return {name: tagged} if tagged else {}
