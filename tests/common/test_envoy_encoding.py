"""Resources on the wire, straight from JSON: what protobuf makes of the same."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from toska_common.envoy import ListenerOptions, Options, find_refusals, translate
from toska_common.envoy.encoding import NotOfTheApi, encode
from toska_common.envoy.resources import CLUSTER, ROUTES
from toska_common.envoy.words import TYPES
from toska_common.envoy_api import message_class, pool
from toska_tests.conformance.case import Case
from toska_tests.conformance.cases import CASES
from toska_tests.gateways import snapshot_of
from toska_tests.routing_documents import documented

_OPTIONS = Options(
    listeners=(ListenerOptions("plain", "127.0.0.1", 8080), ListenerOptions("socket", path="/run/x.sock")), workers=2
)


def _both(url: str, resource: Any) -> tuple[Any, Any]:
    """A resource read from what we encode, and as protobuf reads its JSON; contents of `Any` looked into."""
    kind: Any = message_class(url.removeprefix(TYPES))
    ours = MessageToDict(kind.FromString(encode(url, resource)), descriptor_pool=pool())
    return ours, MessageToDict(ParseDict(resource, kind(), descriptor_pool=pool()), descriptor_pool=pool())


@pytest.mark.parametrize("case", CASES[::9], ids=[case.name for case in CASES[::9]])
def test_a_case_is_encoded_as_protobuf_encodes_it(case: Case) -> None:
    snapshot = snapshot_of(documented(case))
    if find_refusals(snapshot.table):
        return
    for url, found in translate(snapshot.table, snapshot.endpoints, _OPTIONS).by_type().items():
        for name, resource in found.items():
            ours, protobufs = _both(url, resource)
            assert ours == protobufs, (url, name)


_VALUES: list[tuple[str, Any]] = [
    ("google.protobuf.Struct", {"b": None, "a": [1, 2.5, "x", True, {"c": {}}], "": False}),
    ("google.protobuf.Duration", "-1.5s"),
    ("google.protobuf.Duration", "0.000000001s"),
    ("google.protobuf.UInt32Value", 0),
    ("google.protobuf.DoubleValue", 0.0),
    ("google.protobuf.BoolValue", False),
    ("envoy.config.core.v3.DataSource", {"inline_bytes": "AP8="}),
    ("envoy.config.core.v3.DataSource", {"inline_string": ""}),
    ("envoy.type.v3.Int64Range", {"start": "-5", "end": 9007199254740993}),
    ("envoy.config.route.v3.RouteAction", {"cluster": "", "timeout": "0s", "max_internal_redirects": 0}),
    (
        "envoy.config.cluster.v3.Cluster",
        {"name": "a", "type": "EDS", "lbPolicy": "RANDOM", "cleanup_interval": None},
    ),
]


@pytest.mark.parametrize(("kind", "value"), _VALUES)
def test_a_value_is_encoded_as_protobuf_encodes_it(kind: str, value: Any) -> None:
    ours, protobufs = _both(TYPES + kind, value)
    assert ours == protobufs


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        ({"nam": "x"}, "nam"),
        ({"name": 5}, "name"),
        ({"type": "NOWHERE"}, "type"),
        ({"connect_timeout": "5"}, "connect_timeout"),
        ({"per_connection_buffer_limit_bytes": 1.5}, "per_connection_buffer_limit_bytes"),
        ({"load_assignment": {"endpoints": [{"priority": "x"}]}}, "priority"),
    ],
)
def test_what_is_not_of_the_api_is_named(resource: dict[str, Any], names: str) -> None:
    with pytest.raises(NotOfTheApi, match=names):
        encode(CLUSTER, resource)


def test_keys_of_maps_may_come_in_any_order() -> None:
    filters = {name: {"@type": TYPES + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"} for name in "cab"}
    host = {"name": "x", "domains": ["*"], "typed_per_filter_config": filters}
    turned = {"virtual_hosts": [{**host, "typed_per_filter_config": dict(reversed(filters.items()))}]}
    assert encode(ROUTES, {"virtual_hosts": [host]}) == encode(ROUTES, json.loads(json.dumps(turned)))
