"""Envoy under change without end: endpoints and routes come and go, and no update is refused and no request lost.

`make churn` runs it for five minutes (TOSKA_CHURN_SECONDS); in the suite it takes a few seconds.
"""

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
from toska_tests.envoys import EnvoyGateway, running_envoy
from toska_tests.raw_http import answering, connect, get, response, upstream

_SECONDS = float(os.environ.get("TOSKA_CHURN_SECONDS", "3"))
_CLIENTS = 4
_UPSTREAMS = 4
_EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {"rate_limit": {"requests": 1_000_000}},
    {"compress": {}},
    {"ip": {"allow": ["127.0.0.0/8"]}},
    {"body": {"max_bytes": 1_000_000}},
    {"headers": {"response": {"set": {"x-churn": "1"}}}},
    {"hedge": {"after": "5s"}},
    {"fallback": {"cluster": "spare"}},
    {"fallback": {"respond": {"status": 200, "body": "instead"}, "on": ["unavailable"]}},
)
_STICKY: tuple[dict[str, Any], ...] = ({}, {"sticky": {"header": "x-user"}}, {"sticky": {"set_cookie": "part"}})


class Churn:
    """Ever new routing, of which one part always serves `/steady` and `/split`."""

    def __init__(self, ports: list[int], seed: int) -> None:
        self._ports = ports
        self._random = random.Random(seed)
        self._serial = 0

    def document(self) -> dict[str, Any]:
        """The next one."""
        self._serial += 1
        passing = [f"passing-{self._serial - back}" for back in range(self._random.randint(0, 2))]
        names = ["steady", "split-a", "split-b", "spare", *passing]
        weight = self._random.randint(1, 9)
        split = [{"cluster": "split-a", "weight": weight}, {"cluster": "split-b", "weight": 10 - weight}]
        routes: list[dict[str, Any]] = [
            {"name": "steady", "match": {"path_prefix": "/steady"}, "to": "steady", "policies": self._policies()},
            {
                "name": "split",
                "match": {"path_prefix": "/split"},
                "to": split,
                "policies": self._policies(),
                **self._random.choice(_STICKY),
            },
            *({"name": name, "match": {"path_prefix": f"/{name}"}, "to": name} for name in passing),
        ]
        clusters = {name: self._cluster() for name in names}
        if not any("fallback" in one.get("policies", {}) for one in routes) and self._random.random() < 0.3:
            clusters["steady"]["failover"] = {"to": "spare"}
        if self._random.random() < 0.3:
            routes.append({"name": "near", "match": {"path_prefix": "/", "client_ip": ["192.0.2.0/24"]}, "to": "spare"})
        return {"clusters": clusters, "routes": routes}

    def _cluster(self) -> dict[str, Any]:
        ports = self._random.sample(self._ports, self._random.randint(1, len(self._ports)))
        return {"endpoints": [{"address": "127.0.0.1", "port": port} for port in ports]}

    def _policies(self) -> dict[str, Any]:
        return self._random.choice(_EXTRAS) if self._random.random() < 0.3 else {}


async def _keep_asking(envoy: EnvoyGateway, path: str, seen: Counter[str], stop: anyio.Event) -> None:
    while not stop.is_set():
        client = await connect(envoy.address)
        try:
            closing = False
            while not closing and not stop.is_set():
                answer = await client.ask(get(path))
                seen[str(answer.status)] += 1
                closing = answer.value("connection") == b"close"
        except (OSError, EOFError) as error:
            seen[f"{type(error).__name__} on {path}"] += 1
        finally:
            await client.aclose()


async def test_no_update_is_refused_and_no_request_lost_while_everything_changes() -> None:
    seen: Counter[str] = Counter()
    stop = anyio.Event()
    updates = 0
    async with AsyncExitStack() as stack:
        behaviour = answering(response(200, "content-type: text/plain", body=b"ok"))
        ports = [(await stack.enter_async_context(upstream(behaviour))).port for _ in range(_UPSTREAMS)]
        churn = Churn(ports, seed=1)
        envoy = await stack.enter_async_context(running_envoy(churn.document(), threads=2))
        pid = envoy.pid
        async with anyio.create_task_group() as group:
            for number in range(_CLIENTS):
                group.start_soon(_keep_asking, envoy, ("/steady", "/split")[number % 2], seen, stop)
            with anyio.move_on_after(_SECONDS):
                while True:
                    with anyio.CancelScope(shield=True):
                        await envoy.serve(churn.document())  # raises if it is refused
                    updates += 1
                    await anyio.lowlevel.checkpoint()
            stop.set()
        assert envoy.pid == pid
    print(f"{updates} updates, {seen.total()} requests")
    assert set(seen) == {"200"}, f"after {updates} updates: {seen}"
    assert updates > 5 and seen["200"] > 50, (updates, seen)
