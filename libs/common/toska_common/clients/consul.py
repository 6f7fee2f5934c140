"""An async client of Consul's HTTP API: for real Consul agents, and for discovery's own registry, which speaks it too.

One aiohttp session per client (httpx costs several times as much per call, and a mesh holds hundreds of blocked
queries). Reads that can block return `(data, index)`; `watch_…` turn them into streams that survive every outage.

    async with ConsulClient.open("http://127.0.0.1:8500", token=token) as consul:
        await consul.register_service(ServiceRegistration(name="orders", port=9001, checks=(TTLCheck(ttl),)))
        async for entries in consul.watch_health("orders", passing=True):
            ...

Source: https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

import contextlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Self
from urllib.parse import quote

import anyio

from toska_common.clients.consul_records import (
    AgentSelf,
    CatalogService,
    Check,
    KVPair,
    Node,
    ServiceEntry,
    ServiceInstance,
    ServiceRegistration,
    TTLCheck,
)
from toska_common.clients.consul_watch import OutageListener, Sleep, ignore, watch
from toska_common.clients.consul_wire import DEFAULT_WAIT, ConsulWire, encode, parse, segment
from toska_common.clients.registry_tls import RegistryTls
from toska_common.contracts.discovery import Health
from toska_common.errors import CallerError, NotFound
from toska_common.units import format_duration

__all__ = [
    "AgentSelf",
    "CatalogService",
    "Check",
    "ConsulClient",
    "KVPair",
    "Node",
    "ServiceEntry",
    "ServiceInstance",
    "ServiceRegistration",
    "TTLCheck",
]

CALL_TIMEOUT = timedelta(seconds=5)
"""Deadline of a call that does not block."""
_REGISTERED = frozenset(
    {"ID", "Tags", "Address", "Port", "TaggedAddresses", "Weights", "EnableTagOverride", "Kind", "Proxy", "Connect"}
)
"""What a registration and `agent/service/:id` have in common."""


class ConsulClient:
    """Calls one agent. Every call ends within its deadline and raises the errors of `ConsulWire` only."""

    def __init__(self, wire: ConsulWire) -> None:
        self._wire = wire

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, token: str = "", call_timeout: timedelta = CALL_TIMEOUT, tls: RegistryTls | None = None
    ) -> AsyncGenerator[Self]:
        """Open a client of the agent at `url` (`http://host:port`); nothing is connected before the first call.

        Args:
            url: Base URL, without `/v1`.
            token: Sent as `X-Consul-Token` with every call.
            call_timeout: Deadline of each call, on top of what a blocking query may wait.
            tls: For `https://`; the machine's own authorities are believed if left out.

        Raises:
            ConfigurationError: A file of `tls` cannot be used.
        """
        async with ConsulWire.open(url, token=token, call_timeout=call_timeout, tls=tls) as wire:
            yield cls(wire)

    # The agent: what runs beside it.

    async def register_service(self, registration: ServiceRegistration) -> None:
        """List an instance, or replace it together with its checks."""
        await self._wire.send(
            "PUT", "agent/service/register", {"replace-existing-checks": "true"}, encode(registration.encode())
        )

    async def amend_service(
        self, service_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """Change an instance's metadata and leave the rest of it, its checks included, as it is; returns the metadata.

        Raises:
            NotFound: The agent has none of that id.
        """
        body: dict[str, Any] = await self._wire.read(f"agent/service/{segment(service_id)}")
        meta: Mapping[str, str] = body.get("Meta") or {}
        changed = change(meta)
        if changed != meta:
            kept = {key: value for key, value in body.items() if key in _REGISTERED and value is not None}
            registration = {**kept, "Name": body["Service"], "Meta": dict(changed)}
            await self._wire.send("PUT", "agent/service/register", body=encode(registration))
        return changed

    async def deregister_service(self, service_id: str) -> None:
        """Take an instance off the list; one that is not there (any more) is fine."""
        # Consul answered 200 for an unknown id before 1.11, and 404 since.
        with contextlib.suppress(NotFound):
            await self._wire.send("PUT", f"agent/service/deregister/{segment(service_id)}")

    async def pass_check(self, check_id: str, note: str = "") -> None:
        """Renew a TTL check as passing.

        Raises:
            NotFound: The agent does not know the check (any more): register again.
        """
        await self._wire.send("PUT", f"agent/check/pass/{segment(check_id)}", {"note": note} if note else {})

    async def warn_check(self, check_id: str, note: str = "") -> None:
        """Renew a TTL check as warning; see `pass_check`."""
        await self._wire.send("PUT", f"agent/check/warn/{segment(check_id)}", {"note": note} if note else {})

    async def fail_check(self, check_id: str, note: str = "") -> None:
        """Turn a TTL check critical; see `pass_check`."""
        await self._wire.send("PUT", f"agent/check/fail/{segment(check_id)}", {"note": note} if note else {})

    async def update_check(self, check_id: str, status: Health, output: str = "") -> None:
        """Report a TTL check's status with an output of any length up to the agent's bound; see `pass_check`."""
        body = encode({"Status": status.value, "Output": output})
        await self._wire.send("PUT", f"agent/check/update/{segment(check_id)}", body=body)

    async def agent_services(self) -> dict[str, ServiceInstance]:
        """The instances registered with this agent, by id."""
        found: Mapping[str, Any] = await self._wire.read("agent/services")
        return {key: ServiceInstance.decode(value) for key, value in found.items()}

    async def agent_service(self, service_id: str) -> ServiceInstance:
        """One instance of this agent.

        Raises:
            NotFound: The agent has none of that id.
        """
        return ServiceInstance.decode(await self._wire.read(f"agent/service/{segment(service_id)}"))

    async def agent_checks(self) -> dict[str, Check]:
        """The checks registered with this agent, by id."""
        found: Mapping[str, Any] = await self._wire.read("agent/checks")
        return {key: Check.decode(value) for key, value in found.items()}

    async def agent_self(self) -> AgentSelf:
        """Who answers."""
        return AgentSelf.decode(await self._wire.read("agent/self"))

    async def leader(self) -> str:
        """Address of the cluster's leader; empty while there is none."""
        return await self._wire.read("status/leader")

    # The catalog: what the cluster knows.

    async def catalog_services(
        self, *, consistent: bool = False, index: int = 0, wait: timedelta | None = None
    ) -> tuple[dict[str, tuple[str, ...]], int]:
        """The names of all services with the tags that their instances have; `consistent` as in `health_service`."""
        found, index = await self._wire.block(
            "catalog/services", {"consistent": "1"} if consistent else {}, index, wait
        )
        return {name: tuple(tags) for name, tags in found.items()}, index

    async def catalog_service(
        self, name: str, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[CatalogService], int]:
        """All instances of a service, whatever their health."""
        found, index = await self._wire.block(f"catalog/service/{segment(name)}", {}, index, wait)
        return [CatalogService.decode(item) for item in found], index

    async def health_service(
        self,
        name: str,
        *,
        passing: bool = False,
        tags: Sequence[str] = (),
        consistent: bool = False,
        index: int = 0,
        wait: timedelta | None = None,
    ) -> tuple[list[ServiceEntry], int]:
        """The instances of a service with their checks; only those with all of `tags`, only the passing if asked.

        `consistent` makes the leader ask the others first: without it a cluster that just restarted may be behind.
        """
        query: list[tuple[str, str]] = [("tag", tag) for tag in tags]
        if consistent:
            query.append(("consistent", "1"))
        if passing:
            query.append(("passing", "1"))
        found, index = await self._wire.block(f"health/service/{segment(name)}", query, index, wait)
        return [ServiceEntry.decode(item) for item in found], index

    async def health_checks(
        self, name: str, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[Check], int]:
        """The checks of a service's instances."""
        found, index = await self._wire.block(f"health/checks/{segment(name)}", {}, index, wait)
        return [Check.decode(item) for item in found], index

    async def health_state(
        self, state: Health | None = None, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[Check], int]:
        """All checks, or those in one state."""
        found, index = await self._wire.block(f"health/state/{state.value if state else 'any'}", {}, index, wait)
        return [Check.decode(item) for item in found], index

    # Keys and values.

    async def kv_get(
        self, key: str, *, consistent: bool = False, index: int = 0, wait: timedelta | None = None
    ) -> tuple[KVPair | None, int]:
        """One key, or `None`; `consistent` as in `health_service`."""
        query = {"consistent": "1"} if consistent else {}
        found, index = await self._wire.block(f"kv/{quote(key)}", query, index, wait, absent=[])
        return (KVPair.decode(found[0]) if found else None), index

    async def kv_list(self, prefix: str, *, index: int = 0, wait: timedelta | None = None) -> tuple[list[KVPair], int]:
        """All keys that start with `prefix`, sorted."""
        found, index = await self._wire.block(f"kv/{quote(prefix)}", {"recurse": "true"}, index, wait, absent=[])
        return [KVPair.decode(item) for item in found], index

    async def kv_keys(
        self, prefix: str, *, separator: str = "", index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[str], int]:
        """The names of all keys that start with `prefix`, cut after the next `separator`."""
        query = {"keys": "true", "separator": separator} if separator else {"keys": "true"}
        return await self._wire.block(f"kv/{quote(prefix)}", query, index, wait, absent=[])

    async def kv_put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Write a key; with `cas` only if that is still its ModifyIndex (0: only if it does not exist yet)."""
        query = {"flags": str(flags)} if flags else {}
        if cas is not None:
            query["cas"] = str(cas)
        return parse(await self._wire.send("PUT", f"kv/{quote(key)}", query, value))

    async def kv_delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> bool:
        """Remove a key, or all that start with it; with `cas` only if that is still its ModifyIndex."""
        query = {"recurse": "true"} if recurse else {}
        if cas is not None:
            query["cas"] = str(cas)
        return parse(await self._wire.send("DELETE", f"kv/{quote(key)}", query))

    # Sessions and locks; `toska_common.clients.consul_lock` makes a lock of them that knows when it is lost.

    async def create_session(
        self,
        *,
        name: str = "",
        ttl: timedelta | None = None,
        lock_delay: timedelta | None = None,
        delete: bool = False,
        checks: Sequence[str] = (),
    ) -> str:
        """Open a session on the agent's node and return its id.

        Args:
            name: For people.
            ttl: How often it must be renewed, 10 s at least; never if left out.
            lock_delay: How long nobody gets a lock that was lost with it; 15 s if left out, 60 s at most.
            delete: Have the keys that it holds deleted when it ends, and not only released.
            checks: Ids of instances' checks on this agent; it ends when one of them turns critical or goes.
        """
        body: dict[str, Any] = {"Name": name, "Behavior": "delete" if delete else "release"}
        if ttl is not None:
            body["TTL"] = format_duration(ttl)
        if lock_delay is not None:
            body["LockDelay"] = format_duration(lock_delay)
        if checks:
            body["ServiceChecks"] = [{"ID": check_id} for check_id in checks]
        return parse(await self._wire.send("PUT", "session/create", body=encode(body)))["ID"]

    async def renew_session(self, session: str) -> None:
        """Keep a session for one more TTL.

        Raises:
            NotFound: It has ended.
        """
        await self._wire.send("PUT", f"session/renew/{segment(session)}")

    async def destroy_session(self, session: str) -> None:
        """End a session; its locks are lost, with their delay. One that has ended is fine."""
        await self._wire.send("PUT", f"session/destroy/{segment(session)}")

    async def kv_acquire(self, key: str, value: bytes, session: str) -> KVPair | None:
        """Write a key and take its lock; `None` if another session has it, or lost it just now.

        Returns:
            The key as it is then, but for its value; its `lock_index` is this holder's fencing value.

        Raises:
            NotFound: The session has ended.
        """
        lock = {"Verb": "lock", "Key": key, "Value": b64encode(value).decode(), "Session": session}
        status, _, body = await self._wire.exchange("PUT", "txn", [], encode([{"KV": lock}]))
        if status != 409:
            self._wire.check(status, body)
            return KVPair.decode(parse(body)["Results"][0]["KV"])
        reason: str = parse(body)["Errors"][0]["What"]
        if reason.startswith("failed to lock key"):
            return None
        raise (NotFound if reason.startswith("invalid session") else CallerError)(f"the registry refuses: {reason}")

    async def kv_release(self, key: str, value: bytes, session: str) -> bool:
        """Write a key and give its lock back; false if the session does not hold it (any more)."""
        return parse(await self._wire.send("PUT", f"kv/{quote(key)}", {"release": session}, value))

    # Streams of states.

    def watch_services(
        self, *, wait: timedelta = DEFAULT_WAIT, on_outage: OutageListener = ignore, sleep: Sleep = anyio.sleep
    ) -> AsyncGenerator[dict[str, tuple[str, ...]]]:
        """The services' names and tags, now and after each change, for ever; outages are logged and sat out."""
        return watch("catalog/services", partial(self.catalog_services, wait=wait), on_outage, sleep)

    def watch_health(
        self,
        name: str,
        *,
        passing: bool = False,
        wait: timedelta = DEFAULT_WAIT,
        on_outage: OutageListener = ignore,
        sleep: Sleep = anyio.sleep,
    ) -> AsyncGenerator[list[ServiceEntry]]:
        """The instances of a service, now and after each change, for ever; outages are logged and sat out."""
        query = partial(self.health_service, name, passing=passing, wait=wait)
        return watch(f"health/service/{name}", query, on_outage, sleep)

    def watch_keys(self, prefix: str, *, wait: timedelta = DEFAULT_WAIT) -> AsyncGenerator[list[KVPair]]:
        """The keys below `prefix`, now and after each change, for ever; outages are logged and sat out."""
        return watch(f"kv/{prefix}", partial(self.kv_list, prefix, wait=wait), ignore)
