"""`filter` in front of the endpoints that have it: an expression is checked before the endpoint is asked, and narrows
the answer it gives.

The encoded answer is read again instead of being built anew, so that an endpoint needs to know nothing of filters and
requests without one pay nothing for them.
"""

import json
from collections.abc import Awaitable
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from toska_discovery.consul.endpoints import Endpoints, Handler
from toska_discovery.consul.request import ConsulRequest, Query, Refusal, Reply, encode
from toska_discovery.filters import InvalidFilter, Predicate, Struct, compile_filter

PREFIX = "Failed to create boolean expression evaluator: "


def filterable(handler: Handler, fields: Struct, *, below: str = "", prefix: str = PREFIX) -> Handler:
    """`handler`, which takes `filter` besides.

    Args:
        handler: Answers with a list of entries, or with an object that has an entry under each name.
        fields: What of an entry can be selected.
        below: Where in the answer the entries are, if they are not all of it.
        prefix: What a refusal starts with.
    """

    def handle(here: Endpoints, request: ConsulRequest) -> Awaitable[Reply]:
        text = request.query.first("filter")
        return narrowed(here, request, text) if text else handler(here, request)

    async def narrowed(here: Endpoints, request: ConsulRequest, text: str) -> Reply:
        try:
            keep = compile_filter(text, fields)
        except InvalidFilter as error:
            # What else is wrong with the request is told first, as Consul does, and nobody waits to be refused.
            await handler(here, _without_waiting(request))
            raise Refusal(500, f"{prefix}{error}") from error
        reply = await handler(here, request)
        return replace(reply, body=_narrow(reply.body, keep, below)) if reply.status == 200 else reply

    return handle


def _without_waiting(request: ConsulRequest) -> ConsulRequest:
    values = {name: values for name, values in request.query.values.items() if name != "index"}
    return replace(request, query=Query(values))


@lru_cache(maxsize=32)
def _narrow(body: bytes, keep: Predicate, below: str) -> bytes:
    """Those entries of an answer that `keep` wants; remembered for the watchers that share both."""
    answer = json.loads(body)
    if not below:
        return encode(_select(answer, keep))
    if answer is None:
        return body
    return encode({**answer, below: _select(answer[below], keep)})


def _select(entries: Any, keep: Predicate) -> Any:
    if isinstance(entries, dict):
        entries = cast("dict[str, Any]", entries)
        return {key: entry for key, entry in entries.items() if keep(entry)}
    return [entry for entry in entries if keep(entry)]
