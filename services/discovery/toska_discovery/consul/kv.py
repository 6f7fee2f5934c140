"""`kv/…`: keys and values."""

import base64
from typing import Any

from toska_discovery.changes import Changes
from toska_discovery.consul.endpoints import Endpoints, index_headers, refuse_other_datacenter
from toska_discovery.consul.ids import refuse_non_uuid
from toska_discovery.consul.request import ConsulRequest, Header, Query, Refusal, Reply, json_reply
from toska_discovery.consul.session import LOOKUP_FAILED
from toska_discovery.coordination import Coordination
from toska_discovery.errors import SessionRefused
from toska_discovery.kv import Entry
from toska_discovery.watch import key_topic, prefix_topic

KEY_MAX = 2048


async def read(here: Endpoints, request: ConsulRequest) -> Reply:
    """`GET kv/:key`, with `?recurse`, `?keys` (and `separator`) or `?raw`."""
    query = request.query
    refuse_other_datacenter(here, request)
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
    return _raw(entry, headers) if query.has("raw") else json_reply([entry_view(entry, entry.value)], *headers)


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
    return json_reply([entry_view(entry, entry.value) for entry in entries], *headers)


async def put(here: Endpoints, request: ConsulRequest) -> Reply:
    """`PUT kv/:key`, with `flags`, and with `cas`, or with `acquire` or `release` of the key's lock."""
    query, key = request.query, request.name
    refuse_other_datacenter(here, request)
    _check_key(key)
    _refuse_conflicts(query, ("cas", "acquire", "release"))
    flags, cas = query.number("flags") or 0, query.number("cas")
    holder = query.first("acquire") or query.first("release")
    if query.first("acquire"):
        refuse_non_uuid(holder, LOOKUP_FAILED)
    value = await request.body()

    def write(state: Coordination, now: float) -> tuple[bool, Changes]:
        if query.has("acquire"):
            return state.acquire(key, value, flags, holder, now)
        if query.has("release"):
            return state.release(key, value, flags, holder)
        return state.put_key(key, value, flags, cas=cas)

    try:
        return json_reply(await here.registry.decide(write))
    except SessionRefused as error:
        raise Refusal(500, error.detail) from error


async def delete(here: Endpoints, request: ConsulRequest) -> Reply:
    """`DELETE kv/:key`, with `cas` or `recurse`."""
    query = request.query
    refuse_other_datacenter(here, request)
    _refuse_conflicts(query, ("cas", "recurse"))
    if query.has("recurse"):
        await here.registry.change(lambda state, _: state.delete_keys_below(request.name))
        return json_reply(value=True)
    _check_key(request.name)
    cas = query.number("cas")
    return json_reply(await here.registry.decide(lambda state, _: state.delete_key(request.name, cas=cas)))


def _check_key(key: str) -> None:
    if not key:
        raise Refusal(400, "Missing key name")
    if len(key) > KEY_MAX:
        raise Refusal(400, f"Key is too long (limit: {KEY_MAX} characters)")


def _refuse_conflicts(query: Query, words: tuple[str, ...]) -> None:
    given = [f"{word}={query.first(word)}" for word in words if query.has(word)]
    if len(given) > 1:
        raise Refusal(400, f"Conflicting flags: {'&'.join(sorted(given))}")


def entry_view(entry: Entry, value: bytes) -> dict[str, Any]:
    """A key as Consul shows it, with `value` as its value."""
    return {
        "LockIndex": entry.lock_index,
        "Key": entry.key,
        "Flags": entry.flags,
        "Value": base64.b64encode(value).decode() if value else None,
        **({"Session": entry.session} if entry.session else {}),
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
