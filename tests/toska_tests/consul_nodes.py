"""Nodes in a registry's catalog: written, and taken off."""

from typing import Any

from toska_tests.discovery_rig import ConsulPort


async def write(port: ConsulPort, **body: Any) -> None:
    answer = await port.put("catalog/register", {"Address": "10.0.0.1", **body})
    assert (answer.status, answer.text.strip()) == (200, "true")


async def erase(port: ConsulPort, **body: Any) -> None:
    answer = await port.put("catalog/deregister", body)
    assert (answer.status, answer.text.strip()) == (200, "true")


async def own_name(port: ConsulPort) -> str:
    return (await port.read("agent/self"))["Config"]["NodeName"]
