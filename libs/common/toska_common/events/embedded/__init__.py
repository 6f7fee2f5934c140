"""The embedded log's protocol and its client; the log itself is the events service's (`toska_events`).

`paths` is where the socket is, `frames` and `records` are the bytes on it, `wording` the JSON in some of them, `client`
one connection that comes back, `transport` the contract above it.
"""
