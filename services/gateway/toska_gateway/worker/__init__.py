"""The data plane: asyncio protocols on uvloop that move HTTP/1.1 requests from a listener to endpoints.

    Downstream (one client connection: framing, limits, pipelining)
        └── Exchange (one request: route, endpoint, attempts, answer)
                └── Upstream (one pooled connection to an endpoint: framing of the response)

Nothing here imports a framework, allocates a task for a request on a pooled connection, or waits for anything but
sockets. Routes and endpoints arrive from the parent over a control channel, already validated.
"""
