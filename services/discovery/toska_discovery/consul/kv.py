"""`kv/…`: keys and values."""

import base64
from typing import Any

from toska_discovery.consul.endpoints import Endpoints, index_headers
from toska_discovery.consul.request import ConsulRequest, Header, Query, Refusal, Reply, json_reply
from toska_discovery.kv import Entry
from toska_discovery.watch import key_topic, prefix_topic

KEY_MAX = 2048


async def read(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET kv/:key`, with `?recurse`, `?keys` (and `separator`) or `?raw`."""
    query = request.query
    _check_datacenter(here, query)
    if query.has("keys") or query.has("recurse"):
        return await _read_below(here, request)
    if not request.name:
        raise Refusal(400, "Missing key name")
    keys = here.registry.state.keys
    index = await here.changed(request, (key_topic(request.name),), lambda: keys.index_of(request.name))
    headers = index_headers(index, catalog=False)
    entry = keys.find(request.name)
    if entry is None:
        return Reply(status=404, headers=headers)
    return _raw(entry, headers) if query.has("raw") else json_reply([_view(entry)], *headers)


async def _read_below(here: Endpoints, request: ConsulRequest) -> Reply:
    query, prefix = request.query, request.name
    keys = here.registry.state.keys
    await here.changed(request, (prefix_topic(prefix),), lambda: keys.list_below(prefix)[1])
    entries, index = keys.list_below(prefix)
    headers = index_headers(index, catalog=False)
    if query.has("keys"):
        names = _cut([entry.key for entry in entries], prefix, query.first("separator"))
        # Consul answers 404 for a prefix that nothing has, and an empty list where everything was asked for.
        return json_reply(names, *headers) if names or not prefix else Reply(status=404, headers=headers)
    if not entries:
        return Reply(status=404, headers=headers)
    return json_reply([_view(entry) for entry in entries], *headers)


async def put(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT kv/:key`, with `flags` and `cas`."""
    query = request.query
    _check_datacenter(here, query)
    _check_key(request.name)
    _refuse_conflicts(query, ("cas", "acquire", "release"))
    for word in ("acquire", "release"):
        if query.has(word):
            raise Refusal(400, f"Sessions are not supported by this registry, so a key cannot be locked by ?{word}")
    flags, cas = query.number("flags") or 0, query.number("cas")
    value = await request.body()
    return json_reply(await here.registry.put_key(request.name, value, flags, cas=cas))


async def delete(here: Endpoints, request: ConsulRequest) -> Reply:
    """`DELETE kv/:key`, with `cas` or `recurse`."""
    query = request.query
    _check_datacenter(here, query)
    _refuse_conflicts(query, ("cas", "recurse"))
    if query.has("recurse"):
        await here.registry.delete_keys_below(request.name)
        return json_reply(value=True)
    _check_key(request.name)
    return json_reply(await here.registry.delete_key(request.name, cas=query.number("cas")))


def _check_key(key: str) -> None:
    if not key:
        raise Refusal(400, "Missing key name")
    if len(key) > KEY_MAX:
        raise Refusal(400, f"Key is too long (limit: {KEY_MAX} characters)")


def _check_datacenter(here: Endpoints, query: Query) -> None:
    datacenter = query.first("dc")
    if datacenter and datacenter != here.node.datacenter:
        raise Refusal(500, "No path to datacenter")


def _refuse_conflicts(query: Query, words: tuple[str, ...]) -> None:
    given = [f"{word}={query.first(word)}" for word in words if query.has(word)]
    if len(given) > 1:
        raise Refusal(400, f"Conflicting flags: {'&'.join(sorted(given))}")


def _view(entry: Entry) -> dict[str, Any]:
    return {
        "LockIndex": entry.lock_index,
        "Key": entry.key,
        "Flags": entry.flags,
        "Value": base64.b64encode(entry.value).decode() if entry.value else None,
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    }


def _raw(entry: Entry, headers: tuple[Header, ...]) -> Reply:
    # As Consul sends it, so that no browser takes a value for a page.
    kind = (
        (b"content-type", b"text/plain"),
        (b"content-security-policy", b"sandbox"),
        (b"x-content-type-options", b"nosniff"),
    )
    return Reply(entry.value, headers=(*kind, *headers))


def _cut(keys: list[str], prefix: str, separator: str) -> list[str]:
    """Keys up to and with the first separator after the prefix, each once."""
    if not separator:
        return keys
    found: dict[str, None] = {}
    for key in keys:
        at = key.find(separator, len(prefix))
        found[key if at < 0 else key[: at + len(separator)]] = None
    return [*found]
