"""Discovery's own life: start, stop and restart."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from toska_common.clients.consul import ConsulClient, ServiceRegistration, TTLCheck
from toska_common.contracts.discovery import Health
from toska_common.errors import MeshError
from toska_discovery.settings import Settings
from toska_tests.clients import http_client
from toska_tests.discovery_rig import discovery_in, discovery_process
from toska_tests.ports import free_port
from toska_tests.waiting import unless_late, wait_until


def registration(name: str, ttl_s: float = 30, port: int = 0) -> ServiceRegistration:
    return ServiceRegistration(name, port=port, checks=(TTLCheck(timedelta(seconds=ttl_s)),))


async def test_what_was_registered_is_there_after_a_restart_with_its_verdict(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
    ):
        await consul.register_service(registration("kept"))
        await consul.warn_check("service:kept", "slow")
        await consul.kv_put("key", b"value", flags=7)
        (before,), index = await consul.health_service("kept")
    async with discovery_in(tmp_path) as discovery, ConsulClient.open(discovery.consul) as consul:
        (after,), later = await consul.health_service("kept")
        assert (after.service, after.health, after.node) == (before.service, Health.WARNING, before.node)
        assert later > index
        pair, _ = await consul.kv_get("key")
        assert pair is not None
        assert (pair.value, pair.flags) == (b"value", 7)


async def test_after_a_restart_each_lease_gets_one_whole_ttl(tmp_path: Path) -> None:
    async def lapses_after_it() -> None:
        async with (
            discovery_in(tmp_path) as discovery,
            ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
        ):
            await consul.register_service(registration("brief", ttl_s=0.6))
        started = time.monotonic()
        async with discovery_in(tmp_path) as discovery, ConsulClient.open(discovery.consul) as consul:
            (entry,), index = await consul.health_service("brief")
            assert entry.health is Health.PASSING
            (entry,), _ = await consul.health_service("brief", index=index, wait=timedelta(seconds=30))
            assert entry.health is Health.CRITICAL
            assert time.monotonic() - started >= 0.6

    await unless_late(lapses_after_it, limit_s=0.6)


async def test_a_critical_instance_is_removed_after_the_time_of_the_settings(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path, removal_after="300ms") as discovery,
        ConsulClient.open(discovery.consul, token=discovery.credentials.join) as consul,
    ):
        started = time.monotonic()
        await consul.register_service(registration("brief", ttl_s=0.2))

        async def is_gone() -> bool:
            return not (await consul.health_service("brief"))[0]

        await wait_until(is_gone)
        assert time.monotonic() - started > 0.4
        assert "brief" not in (await consul.catalog_services())[0]


async def test_discovery_is_listed_while_it_runs_and_not_after_it_stopped(tmp_path: Path) -> None:
    async with discovery_in(tmp_path) as discovery, http_client() as http:
        url = f"{discovery.rest}/api/v1/services/discover?name=toska-discovery"

        async def is_listed() -> bool:
            return len((await http.get(url)).json()) == 1

        await wait_until(is_listed)
        (own,) = (await http.get(url)).json()
        assert (own["address"], own["port"]) == ("127.0.0.1", discovery.settings.port)
    async with discovery_in(tmp_path) as discovery, http_client() as http:
        ids = (await http.get(f"{discovery.consul}/v1/agent/services")).json()
        assert set(ids) <= {f"toska-discovery-{discovery.settings.port}"}


async def test_the_metrics_tell_of_instances_watchers_and_requests(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
        http_client() as http,
    ):
        await consul.register_service(registration("counted"))
        await consul.fail_check("service:counted")
        await consul.kv_put("key", b"v")
        text = (await http.get(f"{discovery.rest}/metrics")).text
    for line in (
        'toska_discovery_instances{health="critical"} 1.0',
        "toska_discovery_keys 1.0",
        "toska_discovery_watchers 0.0",
        'toska_discovery_events_total{event="instance_health_changed"} 1.0',
        'toska_discovery_consul_requests_total{endpoint="agent/service/register",status="200"}',
        "toska_discovery_store_failing 0.0",
    ):
        assert line in text


async def test_a_store_that_cannot_write_fails_readiness_and_writes_but_no_reads(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path) as discovery,
        ConsulClient.open(discovery.consul, token=discovery.credentials.admin) as consul,
        http_client() as http,
    ):
        await consul.kv_put("before", b"1")
        from toska_discovery.app import CONSUL
        from toska_discovery.consul.app import ConsulApi

        (api,) = (listener.app for listener in discovery.service.listeners if listener.name == CONSUL)
        assert isinstance(api, ConsulApi)
        assert api.endpoints is not None
        store = api.endpoints.registry.store
        store._connection.execute("PRAGMA max_page_count = 1")  # pyright: ignore[reportPrivateUsage] - no disk to fill
        with pytest.raises(MeshError, match="cannot be written"):
            await consul.kv_put("big", b"x" * 200_000)
        assert (await http.get(f"{discovery.rest}/health/ready")).status_code == 503
        detailed = (await http.get(f"{discovery.rest}/health/detailed")).json()
        assert "cannot be written" in detailed["components"]["store"]["reason"]
        pair, _ = await consul.kv_get("before")
        assert pair is not None
        store._connection.execute("PRAGMA max_page_count = 100000")  # pyright: ignore[reportPrivateUsage] - see above
        await consul.kv_put("small", b"y")
        assert (await http.get(f"{discovery.rest}/health/ready")).status_code == 200


async def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with discovery_process(tmp_path, TOSKA_DISCOVERY_LEASE_TTL="soon") as process:
        assert await process.program.exit_code() == 2
        (line,) = process.program.stderr.splitlines()
    assert line.startswith("toska-discovery: TOSKA_DISCOVERY_LEASE_TTL: ")
    assert "duration" in line


async def test_a_port_in_use_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with discovery_process(first) as running_one:
        await running_one.wait_until_ready()
        with discovery_process(second, running_one.port) as process:
            assert await process.program.exit_code() == 2
            assert f"cannot listen on 127.0.0.1:{running_one.port}" in process.program.stderr


async def test_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    with discovery_process(tmp_path) as process:
        await process.wait_until_ready()
        process.program.interrupt()
        assert await process.program.exit_code() == 0


@pytest.mark.parametrize(
    ("host", "advertised", "url"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:8500"),
        ("0.0.0.0", "", "http://127.0.0.1:8500"),
        ("0.0.0.0", "10.0.0.5", "http://10.0.0.5:8500"),
        ("::1", "", "http://[::1]:8500"),
    ],
)
def test_the_registrys_own_address_is_one_that_can_be_connected_to(host: str, advertised: str, url: str) -> None:
    assert Settings(host=host, advertise_address=advertised).registry_api_url == url


def test_a_real_consul_needs_no_port_of_ours() -> None:
    settings = Settings(registry_url="consul://consul.example:8500")
    assert not settings.is_embedded
    assert settings.registry_api_url == "http://consul.example:8500"


async def test_a_consul_that_is_away_fails_readiness_and_is_waited_for(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path, registry_url=f"consul://127.0.0.1:{free_port()}") as discovery,
        http_client() as http,
    ):
        assert (await http.get(f"{discovery.rest}/health/live")).status_code == 200
        assert (await http.get(f"{discovery.rest}/health/ready")).status_code == 503
        answer = await http.get(f"{discovery.rest}/api/v1/services")
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/upstream-unavailable")
