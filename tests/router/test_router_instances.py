"""The instances of a registry, and what is kept of them when it comes back without its memory."""

from typing import Any

import pytest
from toska_common.clients.consul import Check, Node, ServiceEntry, ServiceInstance
from toska_common.contracts.discovery import META_EXPOSE, Health
from toska_router.instances import Instances

GRACE = 10.0


def entry(
    number: int, *, health: Health = Health.PASSING, node: str = "node-1", exposed: bool = False, **fields: Any
) -> ServiceEntry:
    own = fields.pop("meta", {})
    values: dict[str, Any] = {"id": f"orders-{number}", "address": "127.0.0.1", "port": 9000 + number, **fields}
    meta = {**own, **({META_EXPOSE: "true"} if exposed else {})}
    service = ServiceInstance(service="orders", meta=meta, **values)
    return ServiceEntry(Node(node, "10.0.0.1"), service, (Check("c", health),))


def keys(instances: Instances) -> list[str]:
    pool = instances.pools().get("orders")
    return [] if pool is None else [endpoint.key for endpoint in pool.endpoints]


@pytest.fixture
def instances() -> Instances:
    known = Instances(GRACE)
    known.replace("orders", [entry(1, exposed=True), entry(2)], now=0)
    return known


def test_only_passing_instances_are_endpoints(instances: Instances) -> None:
    instances.replace("orders", [entry(1, health=Health.WARNING), entry(2, health=Health.CRITICAL), entry(3)], now=1)
    assert keys(instances) == ["orders-3"]


def test_a_service_is_exposed_by_any_instance_that_asks_whatever_its_health(instances: Instances) -> None:
    assert instances.replace("orders", [entry(1, health=Health.CRITICAL, exposed=True)], now=1)
    assert instances.exposed() == {"orders"}
    assert instances.replace("orders", [entry(1)], now=1)
    assert instances.exposed() == frozenset()


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "2852039166"])
def test_an_instance_cannot_lead_anybody_to_the_cloud_s_metadata(instances: Instances, address: str) -> None:
    instances.replace("orders", [entry(1), entry(2, address=address)], now=1)
    assert keys(instances) == ["orders-1"]


def test_news_that_matter_to_nobody_are_no_change(instances: Instances) -> None:
    assert not instances.replace("orders", [entry(2), entry(1, exposed=True)], now=1)
    assert not instances.replace("other", [], now=1)


def test_an_instance_without_an_address_is_at_its_node_s(instances: Instances) -> None:
    instances.replace("orders", [entry(1, address="")], now=1)
    assert instances.pools()["orders"].endpoints[0].address == "10.0.0.1"


def test_an_instance_brings_its_zone_along(instances: Instances) -> None:
    assert instances.replace("orders", [entry(1, meta={"toska-zone": "fra-1"}), entry(2)], now=1)
    assert [endpoint.zone for endpoint in instances.pools()["orders"].endpoints] == ["fra-1", ""]


def test_ids_that_two_agents_gave_stay_apart(instances: Instances) -> None:
    instances.replace("orders", [entry(1, node="a"), entry(1, node="b", address="127.0.0.2"), entry(2)], now=1)
    assert keys(instances) == ["a:orders-1", "b:orders-1", "orders-2"]


@pytest.mark.parametrize(("weight", "taken"), [(0, 1), (7, 7), (1_000_000, 65535)])
def test_weights_are_held_to_what_a_gateway_takes(instances: Instances, weight: int, taken: int) -> None:
    instances.replace("orders", [entry(1, weight=weight)], now=1)
    assert instances.pools()["orders"].endpoints[0].weight == taken


def test_without_an_outage_what_is_gone_is_gone_at_once(instances: Instances) -> None:
    assert instances.replace("orders", [], now=1)
    assert keys(instances) == []
    assert instances.exposed() == frozenset()
    assert len(instances) == 0


def test_after_an_outage_what_is_lost_is_kept_for_the_grace(instances: Instances) -> None:
    instances.outage_over("orders", now=100)
    assert not instances.replace("orders", [], now=100)
    assert keys(instances) == ["orders-1", "orders-2"]
    assert instances.exposed() == {"orders"}
    assert not instances.expire(now=100 + GRACE - 0.1)
    assert instances.expire(now=100 + GRACE)
    assert keys(instances) == []
    assert instances.exposed() == frozenset()
    assert len(instances) == 0


def test_what_comes_back_within_the_grace_was_never_away(instances: Instances) -> None:
    instances.outage_over("orders", now=100)
    instances.replace("orders", [], now=100)
    assert not instances.replace("orders", [entry(1, exposed=True)], now=103)
    assert instances.expire(now=100 + GRACE)
    assert keys(instances) == ["orders-1"]
    assert instances.exposed() == {"orders"}


def test_a_verdict_counts_at_once_even_within_the_grace(instances: Instances) -> None:
    instances.outage_over("orders", now=100)
    assert instances.replace("orders", [entry(1, health=Health.CRITICAL)], now=101)
    assert keys(instances) == ["orders-2"]


def test_an_instance_that_comes_back_under_another_id_is_not_there_twice(instances: Instances) -> None:
    instances.outage_over("orders", now=100)
    instances.replace("orders", [], now=100)
    instances.replace("orders", [entry(1, id="fresh")], now=101)
    assert keys(instances) == ["fresh", "orders-2"]


def test_a_departure_after_the_grace_is_believed_again(instances: Instances) -> None:
    instances.outage_over("orders", now=100)
    instances.replace("orders", [entry(1), entry(2)], now=100)
    assert instances.replace("orders", [entry(1)], now=100 + GRACE + 1)
    assert keys(instances) == ["orders-1"]


def test_a_lowered_share_reaches_the_weights_and_is_seen_beside_whole_ones(instances: Instances) -> None:
    def weights() -> list[int]:
        return [endpoint.weight for endpoint in instances.pools()["orders"].endpoints]

    assert weights() == [1, 1]
    assert instances.replace("orders", [entry(1), entry(2, meta={"toska-score": "0.5"})], now=1)
    assert weights() == [4, 2]
    assert instances.replace("orders", [entry(1, weight=3), entry(2, meta={"toska-score": "0.25"})], now=2)
    assert weights() == [12, 1]
    assert instances.replace("orders", [entry(1), entry(2)], now=3)
    assert weights() == [1, 1]
