"""A real Envoy: who takes over from a cluster that has too few endpoints well, and who answers when one could not."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from toska_common.envoy import Options, find_refusals, translate
from toska_tests.envoys import EnvoyGateway
from toska_tests.gateways import cluster, route, snapshot_of
from toska_tests.ports import free_port
from toska_tests.raw_http import Conversation, Message, Upstream, answering, connect, get, request, response, upstream


@pytest.fixture
async def spare() -> AsyncGenerator[Upstream]:
    async with upstream(answering(response(200, "x-served-by: spare", body=b"spare"))) as running:
        yield running


@pytest.fixture
async def busy() -> AsyncGenerator[Upstream]:
    async with upstream(answering(response(503, "etag: x", body=b"busy"))) as running:
        yield running


async def hang_up(conversation: Conversation) -> None:
    """Read a request and close."""
    await conversation.request()


async def _ask(envoy: EnvoyGateway, message: bytes) -> Message:
    client = await connect(envoy.address)
    try:
        return await client.ask(message)
    finally:
        await client.aclose()


def _with_fallback(port: int, spare: Upstream, **settings: Any) -> dict[str, Any]:
    fallback = {"cluster": "spare", **settings}
    return {
        "clusters": {"app": cluster(port) if port else {"service": "app"}, "spare": cluster(spare.port)},
        "routes": [route("app", policies={"fallback": fallback}), route("spare", "/spare", "spare")],
    }


async def test_a_cluster_without_endpoints_falls_back_and_counts_are_under_its_name(
    envoy: EnvoyGateway, spare: Upstream
) -> None:
    await envoy.serve(_with_fallback(0, spare))
    before = await envoy.stats()
    assert (await _ask(envoy, get("/a"))).body == b"spare"
    after = await envoy.stats()
    assert {one.name for one in after.clusters} - {one.name for one in before.clusters} <= {"app", "spare"}
    assert envoy.news(before, after, "app") == {"200": 1}


async def test_a_status_falls_back_only_where_it_is_named(envoy: EnvoyGateway, busy: Upstream, spare: Upstream) -> None:
    await envoy.serve(_with_fallback(busy.port, spare))
    assert (await _ask(envoy, get("/a"))).status == 503
    await envoy.serve(_with_fallback(busy.port, spare, on=["503"]))
    assert (await _ask(envoy, get("/a"))).body == b"spare"
    assert (await _ask(envoy, request("POST", "/a", body=b"x"))).status == 503


async def test_what_may_have_been_done_is_not_done_again_elsewhere(envoy: EnvoyGateway, spare: Upstream) -> None:
    async with upstream(hang_up) as broken:
        await envoy.serve(_with_fallback(broken.port, spare))
        assert (await _ask(envoy, get("/a"))).body == b"spare"
        assert (await _ask(envoy, request("POST", "/a", body=b"x"))).status == 502


async def test_a_fixed_answer_stands_for_a_status_and_says_why(envoy: EnvoyGateway, busy: Upstream) -> None:
    respond = {"status": 200, "body": "[]", "content_type": "application/json"}
    document = {
        "clusters": {"app": cluster(busy.port)},
        "routes": [route("app", policies={"fallback": {"respond": respond, "on": ["5xx"]}}), route("plain", "/plain")],
    }
    await envoy.serve(document)
    reply = await _ask(envoy, get("/a"))
    assert (reply.status, reply.body) == (200, b"[]")
    fields = [reply.value(name) for name in ("content-type", "x-toska-fallback", "etag", "x-toska-error")]
    assert fields == [b"application/json", b"503", None, None]
    assert (await _ask(envoy, get("/plain"))).body == b"busy"


async def test_a_cluster_that_fails_over_gives_its_affinity_along(envoy: EnvoyGateway, spare: Upstream) -> None:
    first = {**cluster(free_port()), "failover": {"to": "spare"}, "affinity": {"cookie": "who"}}
    await envoy.serve({"clusters": {"app": first, "spare": cluster(spare.port)}, "routes": [route("app")]})
    reply = await _ask(envoy, get("/a"))
    assert reply.status == 200
    cookie = (reply.value("set-cookie") or b"").partition(b";")[0].decode()
    assert cookie.startswith("who=")
    assert (await _ask(envoy, get("/a", f"Cookie: {cookie}"))).body == b"spare"


@pytest.mark.parametrize(
    ("rules", "endpoints", "factor"),
    [({}, 3, 143), ({"below_percent": 50}, 3, 200), ({"min_endpoints": 6}, 3, 50), ({"min_endpoints": 2}, 3, 143)],
)
def test_a_share_follows_from_how_many_are_well(rules: dict[str, Any], endpoints: int, factor: int) -> None:
    first = {**cluster(*range(9001, 9001 + endpoints)), "failover": {"to": "spare", **rules}}
    snapshot = snapshot_of({"clusters": {"app": first, "spare": cluster(9100)}, "routes": [route("app")]})
    made = translate(snapshot.table, snapshot.endpoints, Options())
    assert made.endpoints["app"]["policy"] == {"overprovisioning_factor": factor}
    assert made.clusters["toska-failover-app"]["cluster_type"]["typed_config"]["clusters"] == ["app", "spare"]


def test_two_failovers_that_share_a_cluster_by_other_rules_are_refused() -> None:
    table = snapshot_of(
        {
            "clusters": {
                "one": {**cluster(9001), "failover": {"to": "spare"}},
                "two": {**cluster(9002), "failover": {"to": "spare", "below_percent": 50}},
                "spare": cluster(9100),
            },
            "routes": [route("one", "/one", "one"), route("two", "/two", "two")],
        }
    ).table
    (finding,) = find_refusals(table)
    assert finding.location == ("clusters", "spare")
    assert '"one"' in finding.reason and '"two"' in finding.reason
