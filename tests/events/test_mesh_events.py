"""The mesh's own events: what happens to instances is told, and nothing depends on it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.events import BREAKER_EVENTS, INSTANCE_EVENTS, ROUTING_EVENTS
from toska_tests.clients import http_client
from toska_tests.discovery_rig import discovery_in
from toska_tests.event_services import RunningEvents, events_service
from toska_tests.meshes import toska_up
from toska_tests.ports import free_port
from toska_tests.waiting import PATIENT_S, wait_until


async def told(events: RunningEvents, topic: str, service: str) -> list[Any]:
    found = await events.get(f"log?topic={topic}&limit=1000")
    return [entry["event"] for entry in found if entry["event"]["subject"] == service]


async def until_told(events: RunningEvents, topic: str, service: str, count: int = 1) -> list[Any]:
    async def is_told() -> bool:
        return len(await told(events, topic, service)) >= count

    await wait_until(is_told, within=PATIENT_S, what=f"{topic} tells of {service}")
    return await told(events, topic, service)


async def test_what_becomes_of_an_instance_is_told(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        events_service(discovery) as events,
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
    ):
        checks = (TTLCheck(timedelta(minutes=1)),)
        await consul.register_service(ServiceRegistration("orders", "orders-1", "127.0.0.1", 9001, checks=checks))
        await consul.pass_check("service:orders-1")
        (registered,) = await until_told(events, "mesh.instance.registered", "orders")
        assert registered["source"] == "/services/toska-discovery"
        assert registered["partitionkey"] == "orders-1"
        assert registered["data"]["port"] == 9001
        await consul.fail_check("service:orders-1")

        async def is_told_critical() -> bool:
            changes = await told(events, "mesh.health.changed", "orders")
            return bool(changes) and changes[-1]["data"]["health"] == "critical"

        await wait_until(is_told_critical, within=PATIENT_S, what="it is told that the instance is critical")
        await consul.deregister_service("orders-1")
        (gone,) = await until_told(events, "mesh.instance.deregistered", "orders")
        assert gone["data"]["instance_id"] == "orders-1"


async def test_instances_come_and_go_while_no_events_are_carried_and_are_told_of_later(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
    ):
        for number in range(3):
            await consul.register_service(ServiceRegistration("early", f"early-{number}", "127.0.0.1", 9001 + number))
        assert len((await consul.health_service("early"))[0]) == 3
        async with events_service(discovery) as events:
            found = await until_told(events, "mesh.instance.registered", "early", 3)
    assert [event["data"]["instance_id"] for event in found] == ["early-0", "early-1", "early-2"]


async def test_a_mesh_tells_of_its_routing_its_rollouts_and_its_circuits(tmp_path: Path) -> None:
    async with toska_up(tmp_path, "--no-examples") as mesh, http_client() as client:
        router, admin = f"{mesh.url('router')}/api/v1", mesh.authorization("admin")
        cluster = {
            "endpoints": [{"address": "127.0.0.1", "port": free_port()}],
            "breaker": {"failure_ratio": 0.5, "min_requests": 2, "window": "10s", "cooldown": "30s"},
        }
        for name in ("shop", "shop-canary"):
            assert (await client.put(f"{router}/clusters/{name}", json=cluster, headers=admin)).status_code == 201
        route = {
            "match": {"path_prefix": "/shop"},
            "to": [{"cluster": "shop", "weight": 100}, {"cluster": "shop-canary", "weight": 0}],
        }
        headers = {**admin, "x-toska-actor": "ann", "x-toska-reason": "shop opens"}
        assert (await client.put(f"{router}/routes/shop", json=route, headers=headers)).status_code == 201
        rollout = {
            "route": "shop",
            "baseline": "shop",
            "canary": "shop-canary",
            "steps": [{"percent": 10}, {"percent": 100}],
        }
        answer = await client.put(f"{router}/rollouts/shop", json=rollout, headers=admin)
        assert answer.status_code == 201, answer.text

        async def told(topic: str) -> list[Any]:
            found = await client.get(f"{mesh.url('events')}/api/v1/events/log", params={"topic": topic, "limit": 1000})
            return [entry["event"]["data"] for entry in found.json()]

        async def is_told() -> bool:
            await client.get(f"{mesh.gateway}/shop/")
            topics = ("mesh.route.changed", "mesh.rollout.changed", "mesh.breaker.opened")
            return all([await told(topic) for topic in topics])

        await wait_until(is_told, within=PATIENT_S, what="the mesh tells what happened")
        (change,) = [data for data in await told("mesh.route.changed") if data["routes"] == ["shop"]]
        assert (change["actor"], change["reason"], change["clusters"]) == ("ann", "shop opens", [])
        assert (await told("mesh.rollout.changed"))[0]["name"] == "shop"
        opened, *_ = await told("mesh.breaker.opened")
        assert (opened["cluster"], opened["before"]) == ("shop", "closed")
        for service, topics in (
            ("discovery", INSTANCE_EVENTS),
            ("router", ROUTING_EVENTS),
            ("gateway_admin", BREAKER_EVENTS),
        ):
            document = (await client.get(f"{mesh.url(service)}/asyncapi.json")).json()
            sent = [name for name, item in document["operations"].items() if item["action"] == "send"]
            assert sorted(sent) == sorted(f"publish.{one.event_topic}" for one in topics)
