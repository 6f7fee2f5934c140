"""What a call to another service can fail with: errors of the mesh that are httpx's errors too.

Code that handles `httpx.HTTPError` goes on working; what nobody handles is answered as 502, 503 or 504 by the problem
handlers, since it is the upstream's fault and not this service's.
"""

import httpx

from toska_common.errors import CircuitOpen, UpstreamError, UpstreamTimeout, UpstreamUnavailable


class NoEndpoints(UpstreamUnavailable, httpx.ConnectError):
    """Nobody serves this name at the moment, or the registry was never reached to ask."""


class AllCircuitsOpen(CircuitOpen, httpx.ConnectError):
    """Every instance has failed too often lately; nothing was sent."""


class ConnectFailed(UpstreamUnavailable, httpx.ConnectError):
    """No instance that was tried accepted a connection."""


class CallBroken(UpstreamError, httpx.ReadError):
    """The connection ended before the response did."""


class CallTimeout(UpstreamTimeout, httpx.ReadTimeout):
    """No answer within the call's timeout."""


class DeadlineExceeded(UpstreamTimeout, httpx.TimeoutException):
    """Whoever this work is done for has stopped waiting."""
