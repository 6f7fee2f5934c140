"""The messages of Envoy's API are those of the published wheel, and keep to themselves."""

import lzma
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from toska_common import envoy_api
from toska_common.envoy_api import message_class, pool, type_url


def test_a_message_is_written_and_read_again() -> None:
    cluster = message_class("envoy.config.cluster.v3.Cluster")(name="orders")
    cluster.connect_timeout.FromMilliseconds(250)
    cluster.type = cluster.EDS

    read: Any = message_class("envoy.config.cluster.v3.Cluster").FromString(cluster.SerializeToString())

    assert (read.name, read.connect_timeout.ToMilliseconds(), read.type) == ("orders", 250, 3)


def test_messages_are_packed_under_their_type_url() -> None:
    secret = message_class("envoy.extensions.transport_sockets.tls.v3.Secret")(name="server")
    ours, protobufs = message_class("google.protobuf.Any")(), AnyMessage()
    ours.Pack(secret)
    protobufs.Pack(secret)

    assert ours.type_url == protobufs.type_url == type_url(secret)
    assert type_url(secret) == "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def test_json_of_nested_extensions_is_read_by_type_url() -> None:
    text = """{"name": "web", "filter_chains": [{"filters": [{"name": "http", "typed_config": {"@type":
      "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
      "stat_prefix": "web"}}]}]}"""
    listener = json_format.Parse(text, message_class("envoy.config.listener.v3.Listener")(), descriptor_pool=pool())
    packed = listener.filter_chains[0].filters[0].typed_config
    manager = message_class(packed.TypeName())()

    assert packed.Unpack(manager)
    assert manager.stat_prefix == "web"


@pytest.mark.parametrize(
    "name",
    [
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
        "envoy.service.runtime.v3.Runtime",
    ],
)
def test_every_part_of_the_api_is_there(name: str) -> None:
    assert message_class(name).DESCRIPTOR.full_name == name


def test_a_message_that_the_api_lacks_is_named() -> None:
    with pytest.raises(LookupError, match=r"envoy\.config\.cluster\.v3\.Clutter"):
        message_class("envoy.config.cluster.v3.Clutter")


def test_every_file_can_be_loaded() -> None:
    packed = Path(envoy_api.__file__).with_name("descriptors.binpb.xz").read_bytes()
    names = [file.name for file in FileDescriptorSet.FromString(lzma.decompress(packed)).file]

    assert [pool().FindFileByName(name).name for name in names] == names
    assert len(names) > 400
