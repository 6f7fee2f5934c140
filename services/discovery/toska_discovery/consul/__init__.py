"""Consul's HTTP API on discovery's own registry: a lean ASGI app without a framework.

    access      who may do what, and the words of refusal
    request     a request as the handlers see it, its query parameters, and their replies
    gojson durations decode…    what is sent, read as Consul's Go code reads it; `rules` bounds it
    inventory   everything that the catalog shows, the registry itself included
    views answers               what is answered, in Consul's field names, encoded once per change
    filtering selectors         `filter` in front of the endpoints that have it
    agent… maintenance catalog… kv session txn event acl operating      the endpoints
    app         from a path to its handler

Measured against Consul 1.8.7; what differs on purpose is written down in docs/discovery.md.
"""
