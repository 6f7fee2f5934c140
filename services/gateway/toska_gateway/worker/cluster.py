"""Clusters and their endpoints: which one takes the next request, and the connections that are kept to each.

Endpoints live on across updates under their key, with their pools and counts. The hot path reads one list
(`Cluster.live`), which is rebuilt when an endpoint comes, goes, is ejected or returns.

    endpoint:  live --failed connects--> ejected --time--> live (one failure ejects it again, for twice as long)
"""

import contextlib
import random
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toska_gateway.worker.certificates import ClientContext
    from toska_gateway.worker.exchange import Exchange
    from toska_gateway.worker.upstream import Upstream

_random = random.random
UNIX_PREFIX = "unix:"


class TargetRefused(Exception):
    """The endpoint's address is one that the mesh does not connect to."""


class Endpoint:
    """One address of a cluster, and what this worker knows of it."""

    __slots__ = (
        "active", "address", "cluster", "connecting", "ejected_until", "ejections", "failures", "idle", "key", "port",
        "removed", "requests", "weight",
    )  # fmt: skip

    def __init__(self, cluster: "Cluster", key: str, address: str, port: int, weight: int) -> None:
        self.cluster = cluster
        self.key = key
        self.address = address
        self.port = port
        self.weight = weight
        self.active = 0  # requests in flight
        self.requests = 0
        self.connecting = 0
        self.idle: list[Upstream] = []  # the last used is taken first, so that surplus connections age and close
        self.failures = 0  # failed connects in a row
        self.ejections = 0  # in a row, without a successful connect between them
        self.ejected_until = 0.0
        self.removed = False

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address


class Cluster:
    """Equivalent endpoints behind one balancer."""

    __slots__ = (
        "_cursor", "_pick", "_schedule", "base_ejection", "connections", "endpoints", "fixed", "keep_alive", "live",
        "max_connections", "max_ejection", "max_failures", "max_pending", "mesh_owned", "name", "pending", "tls",
        "version",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = ""
        self.endpoints: dict[str, Endpoint] = {}
        self.live: list[Endpoint] = []
        self.connections = 0
        self.pending: deque[Exchange] = deque()
        self.tls: ClientContext | None = None
        self._cursor = 0
        self._schedule: list[Endpoint] = []

    def configure(self, settings: dict[str, Any]) -> None:
        """Take over the cluster's settings; endpoints and connections stay."""
        limits, outlier = settings["limits"], settings["outlier"]
        self.max_connections: int = limits["max_connections"]
        self.max_pending: int = limits["max_pending"]
        self.max_failures: int = outlier["consecutive_failures"]
        self.base_ejection: float = outlier["base_ejection"]
        self.max_ejection: float = outlier["max_ejection"]
        self.keep_alive: float = settings["keep_alive"]
        self.mesh_owned: bool = settings.get("mesh_owned", False)
        self.fixed: bool = settings.get("fixed", False)  # its endpoints are an operator's, not the registry's
        self._pick = self._round_robin if settings["balancer"] == "round_robin" else self._least_request

    def update(self, endpoints: list[dict[str, Any]], version: str, now: float = 0.0) -> list[Endpoint]:
        """Replace the set of endpoints; returns those that left, whose idle connections the caller closes."""
        known = self.endpoints
        fresh: dict[str, Endpoint] = {}
        for item in endpoints:
            key = item["key"]
            endpoint = known.get(key)
            if endpoint is None or (endpoint.address, endpoint.port) != (item["address"], item["port"]):
                endpoint = Endpoint(self, key, item["address"], item["port"], item["weight"])
            endpoint.weight = item["weight"]
            fresh[key] = endpoint
        gone = [endpoint for key, endpoint in known.items() if fresh.get(key) is not endpoint]
        for endpoint in gone:
            endpoint.removed = True
        self.endpoints = fresh
        self.version = version
        self.refresh(now)
        return gone

    def speak(self, tls: "ClientContext | None", now: float) -> list[Endpoint]:
        """Speak TLS so, or not at all, from now on; returns the endpoints that the caller closes the connections of.

        Endpoints are replaced: to another identity no connection made before may lead, and those go as endpoints go.
        """
        self.tls = tls
        items = [
            {"key": key, "address": one.address, "port": one.port, "weight": one.weight}
            for key, one in self.endpoints.items()
        ]
        gone = self.update([], self.version, now)
        self.update(items, self.version, now)
        return gone

    def refresh(self, now: float) -> None:
        """Rebuild the list of live endpoints; those whose ejection is over return."""
        self.live = [endpoint for endpoint in self.endpoints.values() if endpoint.ejected_until <= now]
        # Every endpoint ejected: an ejection is only a guess, and a refused request is certain, so all are tried.
        rotation = self.live or list(self.endpoints.values())
        self._schedule = interleave(rotation)

    def pick(self, tried: Endpoint | None = None) -> Endpoint | None:
        """Choose an endpoint, another than `tried` if there is one."""
        live = self.live or list(self.endpoints.values())
        if tried is not None and len(live) > 1:
            others = [endpoint for endpoint in live if endpoint is not tried]
            return min(others, key=lambda endpoint: endpoint.active / endpoint.weight)
        if len(live) < 2:
            return live[0] if live else None
        return self._pick(self._schedule)

    def _round_robin(self, schedule: list[Endpoint]) -> Endpoint:
        cursor = self._cursor
        if cursor >= len(schedule):
            cursor = 0
        self._cursor = cursor + 1
        return schedule[cursor]

    def _least_request(self, schedule: list[Endpoint]) -> Endpoint:
        """Power of two choices: of two at random the one with fewer requests in flight by weight (Mitzenmacher).

        They are drawn from the round in which each stands as often as its weight says, so that weights count also where
        there is too little load to compare.
        """
        count = len(schedule)
        first = int(_random() * count)
        second = int(_random() * (count - 1))
        if second >= first:
            second += 1
        one, other = schedule[first], schedule[second]
        return one if one.active * other.weight <= other.active * one.weight else other

    def close_oldest_idle(self) -> bool:
        """Make room for a connection to another endpoint; tells whether there was one to close."""
        pools = [endpoint.idle for endpoint in self.endpoints.values() if endpoint.idle]
        if not pools:
            return False
        min(pools, key=lambda idle: idle[0].idle_since).pop(0).close()
        return True

    def stop_waiting(self, exchange: "Exchange") -> None:
        """Take an exchange out of those that wait for a connection, if it is one of them."""
        with contextlib.suppress(ValueError):
            self.pending.remove(exchange)

    def connect_failed(self, endpoint: Endpoint, now: float) -> bool:
        """Count a failed connect; tells whether the endpoint was ejected for it."""
        endpoint.failures += 1
        if endpoint.failures < self.max_failures or endpoint.ejected_until > now:
            return False
        # (2**1024 is no float, and an endpoint can stay away for as many ejections)
        doubled = self.base_ejection * 2 ** min(endpoint.ejections, 32)
        endpoint.ejected_until = now + min(doubled, self.max_ejection)
        endpoint.ejections += 1
        self.refresh(now)
        return True

    def returns_in(self, now: float) -> int:
        """Seconds, rounded up, until the first endpoint returns; 0 if one is there, or there is none at all."""
        if self.live or not self.endpoints:
            return 0
        return max(1, ceil(min(endpoint.ejected_until for endpoint in self.endpoints.values()) - now))

    def connected(self, endpoint: Endpoint, now: float) -> None:
        """A connect went well: forget the failures, and end an ejection that proved wrong."""
        if endpoint.failures:
            endpoint.failures = 0
            endpoint.ejections = 0
            if endpoint.ejected_until > now:
                endpoint.ejected_until = 0.0
                self.refresh(now)


def interleave(endpoints: list[Endpoint]) -> list[Endpoint]:
    """One round of weighted round robin, spread evenly: earliest virtual deadline first.

    The round is as long as the weights add up to, scaled down to about 1,000 turns.
    """
    if len({endpoint.weight for endpoint in endpoints}) <= 1:
        return list(endpoints)
    total = sum(endpoint.weight for endpoint in endpoints)
    scale = min(1.0, 1000 / total)
    turns = [
        ((turn + 0.5) / share, order, endpoint)
        for order, endpoint in enumerate(endpoints)
        for share in (max(1, round(endpoint.weight * scale)),)
        for turn in range(share)
    ]
    turns.sort(key=lambda item: item[:2])
    return [endpoint for _, _, endpoint in turns]
