"""The fields that `filter` expressions may select, for each kind of entry, under the names that Consul gives them."""

from toska_discovery.filters.fields import Field, Flag, Map, Number, Struct, Structs, Text, Texts

_TEXTS_BY_NAME = Map(Text())
_MESH_GATEWAY = Struct({"Mode": Text()})
_UPSTREAM = Struct(
    {
        "DestinationType": Text(),
        "DestinationNamespace": Text(),
        "DestinationName": Text(),
        "Datacenter": Text(),
        "LocalBindAddress": Text(),
        "LocalBindPort": Number(),
        "MeshGateway": _MESH_GATEWAY,
    }
)
_EXPOSED_PATH = Struct(
    {
        "ListenerPort": Number(),
        "Path": Text(),
        "LocalPathPort": Number(),
        "Protocol": Text(),
        "ParsedFromCheck": Flag(),
    }
)
_PROXY = Struct(
    {
        "DestinationServiceName": Text(),
        "DestinationServiceID": Text(),
        "LocalServiceAddress": Text(),
        "LocalServicePort": Number(),
        "Upstreams": Structs(_UPSTREAM),
        "MeshGateway": _MESH_GATEWAY,
        "Expose": Struct({"Checks": Flag(), "Paths": Structs(_EXPOSED_PATH)}),
    }
)

_SERVICE: dict[str, Field] = {
    "Kind": Text(),
    "ID": Text(),
    "Service": Text(),
    "Tags": Texts(),
    "Address": Text(),
    "TaggedAddresses": Map(Struct({"Address": Text(), "Port": Number()})),
    "Meta": _TEXTS_BY_NAME,
    "Port": Number(),
    "Weights": Struct({"Passing": Number(), "Warning": Number()}),
    "EnableTagOverride": Flag(),
    "Proxy": _PROXY,
    "Connect": Struct({"Native": Flag()}),
}

SERVICES = Struct(_SERVICE)
"""`agent/services`, `catalog/node/:node` and `catalog/node-services/:node`."""

CHECKS = Struct(
    {
        "Node": Text(),
        "CheckID": Text(),
        "Name": Text(),
        "Status": Text(),
        "Notes": Text(),
        "Output": Text(),
        "ServiceID": Text(),
        "ServiceName": Text(),
        "ServiceTags": Texts(),
        "Type": Text(),
    }
)
"""`agent/checks`, `health/node`, `health/checks` and `health/state`."""

_NODE: dict[str, Field] = {
    "ID": Text(),
    "Node": Text(),
    "Address": Text(),
    "Datacenter": Text(),
    "TaggedAddresses": _TEXTS_BY_NAME,
}

NODES = Struct({**_NODE, "Meta": _TEXTS_BY_NAME})
"""`catalog/nodes`."""

CATALOG_SERVICES = Struct(
    {
        **_NODE,
        "NodeMeta": _TEXTS_BY_NAME,
        **{f"Service{name}": kind for name, kind in _SERVICE.items() if name != "Service"},
        "ServiceName": Text(),
    }
)
"""`catalog/service/:name`."""

HEALTH_SERVICES = Struct({"Node": NODES, "Service": SERVICES, "Checks": Structs(CHECKS)})
"""`health/service/:name`."""
