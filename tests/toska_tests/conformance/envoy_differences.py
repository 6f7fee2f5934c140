"""What Envoy does otherwise than our own workers: cases that it does not pass, with the reason (`docs/envoy.md`)."""

from collections.abc import Mapping
from typing import Final

_CACHE: Final = "refused: Envoy keeps no responses here"
_PARSER: Final = "refused alike; Envoy's parser tells fewer kinds of malformed requests apart"
_LENIENT: Final = "Envoy mends or takes what our parser refuses"
_VERSIONS: Final = "refused: Envoy does not know versions of an API"
_BREAKER: Final = "refused: Envoy has no circuit that opens by a share of failures"
_RESET: Final = "where connections that break are retried, Envoy also retries tries that are late or malformed"

ENVOY_DIFFERENCES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "a fresh response is served without asking",
            "a response is not kept that says no-store",
            "a response is not kept that is private",
            "a response is not kept that sets a cookie",
            "a response is not kept that varies by everything",
            "a response is not kept that says nothing of its life",
            "a response to a request with credentials is nobody else's",
            "responses are told apart by what they vary by",
            "a conditional request is answered from the cache",
            "an unsafe method makes what is kept unfit",
        ),
        _CACHE,
    ),
    **dict.fromkeys(
        (
            "a request with two lengths is refused and its connection closed",
            "a request with a signed length is refused and its connection closed",
            "a request with chunked that is not last is refused and its connection closed",
            "a request with a space before a colon is refused and its connection closed",
            "a request with a NUL in a field is refused and its connection closed",
            "a request with an unknown method is refused and its connection closed",
        ),
        _PARSER,
    ),
    **dict.fromkeys(
        (
            "a request with a folded field is refused and its connection closed",
            "a request with another version is refused and its connection closed",
            "a request with a long target is refused and its connection closed",
        ),
        _LENIENT,
    ),
    **dict.fromkeys(
        (
            "a version is served by its own cluster, whichever way it is named",
            "a version that ends says so",
        ),
        _VERSIONS,
    ),
    **dict.fromkeys(
        (
            "a circuit opens on failures, refuses without asking, and says when to come back",
            "a circuit stays closed while enough goes well",
        ),
        _BREAKER,
    ),
    **dict.fromkeys(
        (
            "an upstream that does not answer in time is a gateway timeout",
            "an answer that is no HTTP is a bad gateway",
        ),
        _RESET,
    ),
    "escaped slashes are kept where the route says so, and separate nothing": (
        "refused: Envoy does not ask whose route a path is with its slashes decoded"
    ),
    "a redirect has the status that was asked for, and may lead elsewhere": (
        "refused: Envoy does not join a query of the redirect with the request's"
    ),
    "fields of one hop are not passed on to the client": "Envoy passes on what an upstream's Connection names",
    "no other protocol is switched to": "with several protocols Envoy passes those on that are let through",
}
"""By a case's name."""
