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
import json
import random
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import anyio
import structlog

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
from toska_common.clients.registry_tls import RegistryTls
from toska_common.contracts.discovery import Health
from toska_common.errors import (
    CallerError,
    Forbidden,
    MeshError,
    NotFound,
    Unauthenticated,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from toska_common.units import format_duration

if TYPE_CHECKING:
    import aiohttp

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

log = structlog.get_logger(__name__)

T = TypeVar("T")

OutageListener = Callable[[MeshError | None], None]
"""Told the error with which a watch's outage begins, and `None` when it is over, before anything new is yielded."""

CALL_TIMEOUT = timedelta(seconds=5)
"""Deadline of a call that does not block."""
DEFAULT_WAIT = timedelta(minutes=5)
"""How long a watch lets each blocking query wait; Consul's own default."""
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0
"""Bounds of a watch's pause after errors: doubled each time, then a random part of it (full jitter)."""


_REGISTERED = frozenset(
    {"ID", "Tags", "Address", "Port", "TaggedAddresses", "Weights", "EnableTagOverride", "Kind", "Proxy", "Connect"}
)
"""What a registration and `agent/service/:id` have in common."""


def _ignore(_: MeshError | None) -> None:
    return


class ConsulClient:
    """Calls one agent. Every call ends within its deadline and raises errors of `toska_common.errors` only:

    `UpstreamUnavailable` (nobody there, or no leader), `UpstreamTimeout`, `UpstreamError` (any other 5xx),
    `Unauthenticated` (no token, or an unknown one), `Forbidden`, `NotFound`, `CallerError` (any other 4xx).
    """

    def __init__(self, session: "aiohttp.ClientSession", url: str, call_timeout: timedelta) -> None:
        self._session = session
        self._base = f"{url.rstrip('/')}/v1"
        self._timeout = call_timeout

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
        import aiohttp  # here, since it takes 100 ms to import and most who know this module never connect

        context = None if tls is None else tls.context()
        # A watch holds its connection for as long as it waits.
        connector = aiohttp.TCPConnector(limit=0, ssl=True if context is None else context)
        headers = {"X-Consul-Token": token} if token else {}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            yield cls(session, url, call_timeout)

    # The agent: what runs beside it.

    async def register_service(self, registration: ServiceRegistration) -> None:
        """List an instance, or replace it together with its checks."""
        await self._send(
            "PUT", "agent/service/register", {"replace-existing-checks": "true"}, _encode(registration.encode())
        )

    async def amend_service(
        self, service_id: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]
    ) -> Mapping[str, str]:
        """Change an instance's metadata and leave the rest of it, its checks included, as it is; returns the metadata.

        Raises:
            NotFound: The agent has none of that id.
        """
        body: dict[str, Any] = await self._read(f"agent/service/{_segment(service_id)}")
        meta: Mapping[str, str] = body.get("Meta") or {}
        changed = change(meta)
        if changed != meta:
            kept = {key: value for key, value in body.items() if key in _REGISTERED and value is not None}
            registration = {**kept, "Name": body["Service"], "Meta": dict(changed)}
            await self._send("PUT", "agent/service/register", body=_encode(registration))
        return changed

    async def deregister_service(self, service_id: str) -> None:
        """Take an instance off the list; one that is not there (any more) is fine."""
        # Consul answered 200 for an unknown id before 1.11, and 404 since.
        with contextlib.suppress(NotFound):
            await self._send("PUT", f"agent/service/deregister/{_segment(service_id)}")

    async def pass_check(self, check_id: str, note: str = "") -> None:
        """Renew a TTL check as passing.

        Raises:
            NotFound: The agent does not know the check (any more): register again.
        """
        await self._send("PUT", f"agent/check/pass/{_segment(check_id)}", {"note": note} if note else {})

    async def warn_check(self, check_id: str, note: str = "") -> None:
        """Renew a TTL check as warning; see `pass_check`."""
        await self._send("PUT", f"agent/check/warn/{_segment(check_id)}", {"note": note} if note else {})

    async def fail_check(self, check_id: str, note: str = "") -> None:
        """Turn a TTL check critical; see `pass_check`."""
        await self._send("PUT", f"agent/check/fail/{_segment(check_id)}", {"note": note} if note else {})

    async def update_check(self, check_id: str, status: Health, output: str = "") -> None:
        """Report a TTL check's status with an output of any length up to the agent's bound; see `pass_check`."""
        body = _encode({"Status": status.value, "Output": output})
        await self._send("PUT", f"agent/check/update/{_segment(check_id)}", body=body)

    async def agent_services(self) -> dict[str, ServiceInstance]:
        """The instances registered with this agent, by id."""
        found: Mapping[str, Any] = await self._read("agent/services")
        return {key: ServiceInstance.decode(value) for key, value in found.items()}

    async def agent_service(self, service_id: str) -> ServiceInstance:
        """One instance of this agent.

        Raises:
            NotFound: The agent has none of that id.
        """
        return ServiceInstance.decode(await self._read(f"agent/service/{_segment(service_id)}"))

    async def agent_checks(self) -> dict[str, Check]:
        """The checks registered with this agent, by id."""
        found: Mapping[str, Any] = await self._read("agent/checks")
        return {key: Check.decode(value) for key, value in found.items()}

    async def agent_self(self) -> AgentSelf:
        """Who answers."""
        return AgentSelf.decode(await self._read("agent/self"))

    async def leader(self) -> str:
        """Address of the cluster's leader; empty while there is none."""
        return await self._read("status/leader")

    # The catalog: what the cluster knows.

    async def catalog_services(
        self, *, consistent: bool = False, index: int = 0, wait: timedelta | None = None
    ) -> tuple[dict[str, tuple[str, ...]], int]:
        """The names of all services with the tags that their instances have; `consistent` as in `health_service`."""
        found, index = await self._block("catalog/services", {"consistent": "1"} if consistent else {}, index, wait)
        return {name: tuple(tags) for name, tags in found.items()}, index

    async def catalog_service(
        self, name: str, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[CatalogService], int]:
        """All instances of a service, whatever their health."""
        found, index = await self._block(f"catalog/service/{_segment(name)}", {}, index, wait)
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
        found, index = await self._block(f"health/service/{_segment(name)}", query, index, wait)
        return [ServiceEntry.decode(item) for item in found], index

    async def health_checks(
        self, name: str, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[Check], int]:
        """The checks of a service's instances."""
        found, index = await self._block(f"health/checks/{_segment(name)}", {}, index, wait)
        return [Check.decode(item) for item in found], index

    async def health_state(
        self, state: Health | None = None, *, index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[Check], int]:
        """All checks, or those in one state."""
        found, index = await self._block(f"health/state/{state.value if state else 'any'}", {}, index, wait)
        return [Check.decode(item) for item in found], index

    # Keys and values.

    async def kv_get(
        self, key: str, *, consistent: bool = False, index: int = 0, wait: timedelta | None = None
    ) -> tuple[KVPair | None, int]:
        """One key, or `None`; `consistent` as in `health_service`."""
        query = {"consistent": "1"} if consistent else {}
        found, index = await self._block(f"kv/{quote(key)}", query, index, wait, absent=[])
        return (KVPair.decode(found[0]) if found else None), index

    async def kv_list(self, prefix: str, *, index: int = 0, wait: timedelta | None = None) -> tuple[list[KVPair], int]:
        """All keys that start with `prefix`, sorted."""
        found, index = await self._block(f"kv/{quote(prefix)}", {"recurse": "true"}, index, wait, absent=[])
        return [KVPair.decode(item) for item in found], index

    async def kv_keys(
        self, prefix: str, *, separator: str = "", index: int = 0, wait: timedelta | None = None
    ) -> tuple[list[str], int]:
        """The names of all keys that start with `prefix`, cut after the next `separator`."""
        query = {"keys": "true", "separator": separator} if separator else {"keys": "true"}
        return await self._block(f"kv/{quote(prefix)}", query, index, wait, absent=[])

    async def kv_put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Write a key; with `cas` only if that is still its ModifyIndex (0: only if it does not exist yet)."""
        query = {"flags": str(flags)} if flags else {}
        if cas is not None:
            query["cas"] = str(cas)
        return _parse(await self._send("PUT", f"kv/{quote(key)}", query, value))

    async def kv_delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> bool:
        """Remove a key, or all that start with it; with `cas` only if that is still its ModifyIndex."""
        query = {"recurse": "true"} if recurse else {}
        if cas is not None:
            query["cas"] = str(cas)
        return _parse(await self._send("DELETE", f"kv/{quote(key)}", query))

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
        return _parse(await self._send("PUT", "session/create", body=_encode(body)))["ID"]

    async def renew_session(self, session: str) -> None:
        """Keep a session for one more TTL.

        Raises:
            NotFound: It has ended.
        """
        await self._send("PUT", f"session/renew/{_segment(session)}")

    async def destroy_session(self, session: str) -> None:
        """End a session; its locks are lost, with their delay. One that has ended is fine."""
        await self._send("PUT", f"session/destroy/{_segment(session)}")

    async def kv_acquire(self, key: str, value: bytes, session: str) -> KVPair | None:
        """Write a key and take its lock; `None` if another session has it, or lost it just now.

        Returns:
            The key as it is then, but for its value; its `lock_index` is this holder's fencing value.

        Raises:
            NotFound: The session has ended.
        """
        lock = {"Verb": "lock", "Key": key, "Value": b64encode(value).decode(), "Session": session}
        status, _, body = await self._exchange("PUT", "txn", [], _encode([{"KV": lock}]), self._timeout)
        if status != 409:
            self._check(status, body)
            return KVPair.decode(_parse(body)["Results"][0]["KV"])
        reason: str = _parse(body)["Errors"][0]["What"]
        if reason.startswith("failed to lock key"):
            return None
        raise (NotFound if reason.startswith("invalid session") else CallerError)(f"the registry refuses: {reason}")

    async def kv_release(self, key: str, value: bytes, session: str) -> bool:
        """Write a key and give its lock back; false if the session does not hold it (any more)."""
        return _parse(await self._send("PUT", f"kv/{quote(key)}", {"release": session}, value))

    # Streams of states.

    def watch_services(
        self, *, wait: timedelta = DEFAULT_WAIT, on_outage: OutageListener = _ignore
    ) -> AsyncGenerator[dict[str, tuple[str, ...]]]:
        """The services' names and tags, now and after each change, for ever; outages are logged and sat out."""
        return self._watch("catalog/services", partial(self.catalog_services, wait=wait), on_outage)

    def watch_health(
        self, name: str, *, passing: bool = False, wait: timedelta = DEFAULT_WAIT, on_outage: OutageListener = _ignore
    ) -> AsyncGenerator[list[ServiceEntry]]:
        """The instances of a service, now and after each change, for ever; outages are logged and sat out."""
        query = partial(self.health_service, name, passing=passing, wait=wait)
        return self._watch(f"health/service/{name}", query, on_outage)

    def watch_keys(self, prefix: str, *, wait: timedelta = DEFAULT_WAIT) -> AsyncGenerator[list[KVPair]]:
        """The keys below `prefix`, now and after each change, for ever; outages are logged and sat out."""
        return self._watch(f"kv/{prefix}", partial(self.kv_list, prefix, wait=wait))

    async def _watch(
        self, what: str, query: Callable[..., Awaitable[tuple[T, int]]], on_outage: OutageListener = _ignore
    ) -> AsyncGenerator[T]:
        index, failures = 0, 0
        latest: T | None = None
        while True:
            try:
                found, answered = await query(index=index)
            except MeshError as error:
                if not failures:
                    log.warning("registry_watch_interrupted", watch=what, error=error.detail)
                    on_outage(error)
                # From the start afterwards: a registry that lost its memory counts anew and may pass our index again.
                index, failures = 0, failures + 1
                await anyio.sleep(_pause(failures))
                continue
            if failures:
                log.info("registry_watch_resumed", watch=what, failures=failures)
                on_outage(None)
                failures = 0
            # An index that goes back was reset, and one below 1 would make the next query return at once, for ever.
            index = 0 if answered < index else max(1, answered)
            if found != latest:
                latest = found
                yield found

    # The wire.

    async def _read(self, path: str) -> Any:
        return _parse(await self._send("GET", path))

    async def _block(
        self,
        path: str,
        query: Mapping[str, str] | list[tuple[str, str]],
        index: int,
        wait: timedelta | None,
        *,
        absent: Any = None,
    ) -> tuple[Any, int]:
        parameters = [*query.items()] if isinstance(query, Mapping) else [*query]
        timeout = self._timeout
        if index:
            parameters.append(("index", str(index)))
            # Consul adds up to a sixteenth of the wait, so that its watchers do not come back all at once.
            timeout += (wait or DEFAULT_WAIT) * (1 + 1 / 16)
            if wait is not None:
                parameters.append(("wait", format_duration(wait)))
        status, headers, body = await self._exchange("GET", path, parameters, None, timeout)
        answered = int(headers.get("X-Consul-Index", "0"))
        if status == 404 and absent is not None:
            return absent, answered
        self._check(status, body)
        return _parse(body), answered

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        status, _, content = await self._exchange(method, path, [*(query or {}).items()], body, self._timeout)
        self._check(status, content)
        return content

    async def _exchange(
        self, method: str, path: str, query: list[tuple[str, str]], body: bytes | None, timeout: timedelta
    ) -> tuple[int, Mapping[str, str], bytes]:
        import aiohttp
        from yarl import URL

        url = URL(f"{self._base}/{path}", encoded=True).with_query(query)
        limit = aiohttp.ClientTimeout(total=timeout.total_seconds(), sock_connect=self._timeout.total_seconds())
        try:
            async with self._session.request(method, url, data=body, timeout=limit, allow_redirects=False) as response:
                return response.status, response.headers, await response.read()
        except TimeoutError as error:
            raise UpstreamTimeout(f"the registry at {self._base} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnavailable(f"the registry at {self._base} cannot be reached: {error}") from error

    def _check(self, status: int, body: bytes) -> None:
        if status < 300:
            return
        reason = body[:500].decode(errors="replace").strip() or f"status {status}"
        if status == 403 and "ACL not found" in reason:
            raise Unauthenticated(f"the registry does not know this token: {reason}")
        if status == 403:
            known = "X-Consul-Token" in self._session.headers
            raise (Forbidden if known else Unauthenticated)(f"the registry refuses: {reason}")
        if status == 404 or _names_unknown_check(status, reason):
            raise NotFound(reason)
        if status in {429, 503} or "No cluster leader" in reason:
            raise UpstreamUnavailable(f"the registry cannot serve now: {reason}")
        if status >= 500:
            raise UpstreamError(f"the registry failed: {reason}")
        raise CallerError(f"the registry refuses: {reason}")


def _names_unknown_check(status: int, reason: str) -> bool:
    # Consul before 1.11 answers 500 to a report on a check that it does not know, newer ones 404.
    return status == 500 and ("does not have associated TTL" in reason or "Unknown check" in reason)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise UpstreamError("the registry's answer is not JSON: is it a Consul agent?") from error


def _encode(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _segment(name: str) -> str:
    return quote(name, safe="")


def _pause(failures: int) -> float:
    longest = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 10))
    return random.uniform(RETRY_FIRST_S / 2, longest)  # noqa: S311 - spreads retries, guards nothing
