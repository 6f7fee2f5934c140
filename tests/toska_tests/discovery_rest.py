"""Talking to discovery's REST API in tests."""

from typing import Any

import httpx

from toska_tests.ports import free_port
from toska_tests.waiting import wait_until

SERVICES = "/api/v1/services"


def body(name: str, port: int | None = None, **more: Any) -> dict[str, Any]:
    """A registration on this machine."""
    return {"service": name, "address": "127.0.0.1", "port": port or free_port(), **more}


async def register(http: httpx.AsyncClient, name: str, **more: Any) -> dict[str, Any]:
    """Register an instance."""
    answer = await http.post(SERVICES, json=body(name, **more))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def found(http: httpx.AsyncClient, name: str, **query: str) -> list[dict[str, Any]]:
    """What discovery finds."""
    return (await http.get(f"{SERVICES}/discover", params={"name": name, **query})).raise_for_status().json()


async def wait_for(http: httpx.AsyncClient, name: str, *ids: str, **query: str) -> list[dict[str, Any]]:
    """Wait until discovery finds exactly these instances: a real Consul lists them a moment later."""
    listed: list[dict[str, Any]] = []

    async def has_them() -> bool:
        listed[:] = await found(http, name, **query)
        return [instance["id"] for instance in listed] == sorted(ids)

    await wait_until(has_them, what=f"{name} has {ids}; it has {listed}")
    return listed
