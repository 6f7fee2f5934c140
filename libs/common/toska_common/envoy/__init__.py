"""The routing contract in Envoy's words: what Envoy is told so that it serves a table as our own workers would.

Pure: a table and its endpoints go in, v3 resources come out, in protobuf's JSON form. That form is what Envoy reads
from files, what people can read, and what `toska_common.envoy.messages` makes protobuf messages of for an xDS server.
What Envoy cannot do as the contract says is named by `find_refusals`, and never left out in silence.
"""

from toska_common.envoy.options import ListenerOptions, Options
from toska_common.envoy.refusals import Judged, find_refusals
from toska_common.envoy.resources import Resources
from toska_common.envoy.route_parts import RouteEncoder, RouteParts
from toska_common.envoy.translate import translate, translate_endpoints

__all__ = [
    "Judged",
    "ListenerOptions",
    "Options",
    "Resources",
    "RouteEncoder",
    "RouteParts",
    "find_refusals",
    "translate",
    "translate_endpoints",
]
