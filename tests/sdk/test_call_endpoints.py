"""Which of the instances that the registry names may be called, and in what zone."""

from collections import Counter

from toska_common.breaker import BreakerPolicy
from toska_common.clients.consul import (
    Check,
    Node,
    ServiceEntry,
    ServiceInstance,
)
from toska_common.contracts.discovery import Health
from toska_common.mesh.endpoints import Endpoints
from toska_common.targets import TargetRules


def zoned(*zones: str, ill: int = 0) -> Endpoints:
    """Endpoints seen from zone a; the first `ill` of them are critical."""
    endpoints = Endpoints("orders", BreakerPolicy(min_requests=1), TargetRules(), zone="a")
    endpoints.update(
        [
            ServiceEntry(
                Node("node", "127.0.0.1"),
                ServiceInstance("orders", f"orders-{number}", "127.0.0.1", 9000 + number, meta={"toska-zone": zone}),
                (Check("c", Health.CRITICAL if number < ill else Health.PASSING),),
            )
            for number, zone in enumerate(zones)
        ]
    )
    return endpoints


def picked_zones(endpoints: Endpoints, times: int = 400) -> Counter[str]:
    """Where so many calls go."""
    return Counter(endpoint.zone for _ in range(times) if (endpoint := endpoints.pick(0.0)))


def test_the_callers_own_zone_takes_the_calls_that_it_can_carry() -> None:
    assert picked_zones(zoned("a", "a", "b", "b")) == {"a": 400}
    assert picked_zones(zoned("b", "c")).keys() == {"b", "c"}
    half = picked_zones(zoned("a", "a", "b", "b", ill=1))
    assert 200 < half["a"] < 360  # half of it is well: 71% of the calls
    assert picked_zones(zoned("a", "a", "b", ill=2)) == {"b": 400}
    assert picked_zones(zoned("a", "b", ill=2)) == {}


def test_other_zones_stand_by_for_open_circuits_of_the_own() -> None:
    endpoints = zoned("a", "b")
    own = endpoints.pick(0.0)
    assert own is not None
    own.breaker.fail(own.breaker.admit(0.0), 0.0)
    assert picked_zones(endpoints) == {"b": 400}
    other = endpoints.pick(0.0, tried=[own])
    assert other is not None
    assert other.zone == "b"


def test_forbidden_addresses_are_no_endpoints_whatever_the_registry_says() -> None:
    endpoints = Endpoints("tempting", BreakerPolicy(), TargetRules())
    node = Node("vm", "127.0.0.1")
    addresses = ("169.254.169.254", "fe80::1", "2852039166", "10.1.2.3")
    endpoints.update([ServiceEntry(node, ServiceInstance(item, "tempting", item, 80)) for item in addresses])
    assert {endpoints.pick(0) for _ in range(50)} == {endpoints.pick(0)}
    assert (picked := endpoints.pick(0)) is not None
    assert picked.address == "10.1.2.3"
