"""Nodes, instances and checks in Consul's field names and order."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from toska_discovery.check import Check
from toska_discovery.consul.request import encode
from toska_discovery.instance import Instance, ServiceDefinition
from toska_discovery.node import OWN_NODE, NodeDefinition
from toska_discovery.node import Node as Listed

CONSUL = "consul"
"""The registry's own service."""
CONSUL_VERSION = "1.8.7"
"""The Consul that this registry is measured against; clients parse it."""
SEGMENT = {"consul-network-segment": ""}
"""The one piece of metadata that a Consul node has by itself."""


@dataclass(frozen=True)
class Node:
    """The registry's own node: this machine.

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
    def tagged_addresses(self) -> dict[str, str]:
        """Its address, by tag."""
        family = "ipv6" if ":" in self.address else "ipv4"
        return dict.fromkeys(("lan", f"lan_{family}", "wan", f"wan_{family}"), self.address)

    @cached_property
    def definition(self) -> NodeDefinition:
        """What the registry lists it as."""
        return NodeDefinition(self.name, self.address, self.id, self.tagged_addresses, SEGMENT)


def node_body(node: Listed, datacenter: str) -> dict[str, Any]:
    """A node as `catalog/nodes` and `health/service` show it."""
    return {
        **_node_head(node.definition, datacenter),
        "Meta": node.definition.meta,
        "CreateIndex": node.create_index,
        "ModifyIndex": node.modify_index,
    }


def _node_head(node: NodeDefinition, datacenter: str) -> dict[str, Any]:
    return {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": datacenter,
        "TaggedAddresses": node.tagged_addresses,
    }


def catalog_entry(node: Listed, instance: Instance, datacenter: str) -> dict[str, Any]:
    """An instance as `catalog/service` shows it."""
    service = instance.service
    return {
        **_node_head(node.definition, datacenter),
        "NodeMeta": node.definition.meta,
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
        "CreateIndex": instance.create_index,
        "ModifyIndex": instance.modify_index,
    }


def check_body(node: str, instance: Instance | None, check: Check) -> dict[str, Any]:
    """A check of an instance, or of the node called `node`, as the catalog shows it."""
    definition = check.definition
    service = None if instance is None else instance.service
    return {
        "Node": node,
        "CheckID": definition.id,
        "Name": definition.name,
        "Status": check.status.value,
        "Notes": definition.notes,
        "Output": check.output,
        "ServiceID": "" if service is None else service.id,
        "ServiceName": "" if service is None else service.name,
        "ServiceTags": () if service is None else service.tags,
        "Type": definition.kind.value,
        "Definition": definition.document or {},
        "CreateIndex": check.create_index,
        "ModifyIndex": check.modify_index,
    }


def health_service(instance: Instance) -> dict[str, Any]:
    """The `Service` of `health/service`, and the services of `catalog/node`."""
    service = instance.service
    # The agent always sends metadata; what is written into the catalog without any has none.
    meta = service.meta if instance.node == OWN_NODE else service.meta or None
    return {
        "ID": service.id,
        "Service": service.name,
        "Tags": service.tags,
        "Address": service.address,
        **_tagged("TaggedAddresses", service),
        "Meta": meta,
        "Port": service.port,
        "Weights": _weights(service),
        "EnableTagOverride": service.enable_tag_override,
        "Proxy": {"MeshGateway": {}, "Expose": {}},
        "Connect": {},
        "CreateIndex": instance.create_index,
        "ModifyIndex": instance.modify_index,
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
