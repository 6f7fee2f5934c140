"""Where a mesh listens."""

from pathlib import Path

import pytest
from toska_cli.plan import UpOptions, plan_mesh
from toska_cli.ports import PortPlan
from toska_common.errors import ConfigurationError


def test_ports_from_moves_every_port() -> None:
    assert PortPlan.starting_at(9000) == PortPlan(
        gateway=9000,
        gateway_admin=9001,
        discovery=9002,
        registry=9003,
        router=9004,
        dns=9005,
        discovery_grpc=9006,
        xds=9007,
        envoy=9008,
        events=9009,
        events_grpc=9019,
        examples=9010,
    )


@pytest.mark.parametrize("first", [0, -1, 65530, 70000])
def test_a_range_that_does_not_fit_is_refused(first: int) -> None:
    with pytest.raises(ConfigurationError, match="between 1 and"):
        PortPlan.starting_at(first)


def test_listeners_that_were_turned_off_stay_off_when_ports_move(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOSKA_DISCOVERY_GRPC_PORT", "-1")
    monkeypatch.setenv("TOSKA_EVENTS_GRPC_PORT", "-1")
    plan = plan_mesh(UpOptions(home=home, ports_from=23000))
    assert "discovery_grpc" not in plan.urls
    assert "events_grpc" not in plan.urls
    assert not {("127.0.0.1", 23006), ("127.0.0.1", 23019)} & set(plan.bound_later)
    monkeypatch.delenv("TOSKA_DISCOVERY_GRPC_PORT")
    monkeypatch.delenv("TOSKA_EVENTS_GRPC_PORT")
    plan = plan_mesh(UpOptions(home=home, ports_from=23000))
    assert plan.urls["discovery_grpc"] == "grpc://127.0.0.1:23006"
    assert plan.urls["events_grpc"] == "grpc://127.0.0.1:23019"
    assert {("127.0.0.1", 23006), ("127.0.0.1", 23019)} <= set(plan.bound_later)


def test_xds_is_planned_only_where_it_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_mesh(UpOptions(home=home, ports_from=23000))
    assert "xds" not in plan.urls
    assert ("127.0.0.1", 23007) not in plan.bound_later
    monkeypatch.setenv("TOSKA_ROUTER_XDS", "true")
    plan = plan_mesh(UpOptions(home=home, ports_from=23000))
    assert plan.urls["xds"] == "grpc://127.0.0.1:23007"
    assert ("127.0.0.1", 23007) in plan.bound_later
    assert plan.router.xds_listen == (("127.0.0.1", 23008),)
