"""What the Envoy engine says would become of a request: as our own matcher has it, and as Envoy sees its endpoints."""

from typing import Any

from toska_common.contracts.explanation import Explanation
from toska_tests.envoys import EnvoyGateway
from toska_tests.gateways import cluster, route
from toska_tests.ports import free_port
from toska_tests.raw_http import ask, get, response, upstream
from toska_tests.waiting import wait_until


async def _explain(envoy: EnvoyGateway, target: str = "/", *fields: str) -> Explanation:
    told = await envoy.plane.explain(get(target, *fields), "127.0.0.1", "http")
    return Explanation.model_validate({**told, "others": ()})  # (whose names the admin API puts in)


async def test_a_request_is_explained_and_goes_where_it_was_said_to(envoy: EnvoyGateway) -> None:
    async with upstream(response(200, body=b"old")) as old, upstream(response(200, body=b"new")) as new:
        split: dict[str, Any] = {"to": [{"cluster": "old"}, {"cluster": "new"}], "sticky": {"header": "x-user"}}
        routes = [{**route("shop", "/shop"), **split}, route("other", "/other", "old")]
        await envoy.serve({"clusters": {"old": cluster(old.port), "new": cluster(new.port)}, "routes": routes})
        for user in range(6):
            told = await _explain(envoy, "/shop", f"X-User: {user}")
            assert (told.engine, told.outcome, told.pid) == ("envoy", "forwarded", envoy.pid)
            (taken,) = [one.name for one in told.clusters if one.share == 1]
            assert (await ask(envoy.address, get("/shop", f"X-User: {user}"))).body == taken.encode()
        before = len(old.requests) + len(new.requests)
        told = await _explain(envoy, "/nowhere")
        assert (told.outcome, told.status, told.error) == ("no-route", 404, "no-route")
        assert len(old.requests) + len(new.requests) == before


async def test_what_envoy_has_ejected_is_said_and_who_takes_over(envoy: EnvoyGateway) -> None:
    async with upstream() as spare:
        first = {**cluster(free_port()), "failover": {"to": "spare"}}
        await envoy.serve({"clusters": {"app": first, "spare": cluster(spare.port)}, "routes": [route("app")]})

        async def is_ejected() -> bool:
            await ask(envoy.address, get())
            told = await _explain(envoy)
            return any("ejected by Envoy" in one.state for each in told.clusters for one in each.endpoints)

        await wait_until(is_ejected, within=20)
        shares = {one.name: one.share for one in (await _explain(envoy)).clusters}
        assert shares == {"app": 0.0, "spare": 1.0}


async def test_what_envoy_decides_by_a_rule_of_its_own_is_not_made_up(envoy: EnvoyGateway) -> None:
    hashed = {**cluster(9001, 9002), "balancer": "maglev", "hash_key": {"header": "x-user"}}
    routes = [
        {"name": "byregex", "match": {"path_regex": "/a.*"}, "to": "app"},
        {"name": "byquery", "match": {"path_prefix": "/q", "query": {"v": {"regex": "[0-9]"}}}, "to": "app"},
    ]
    await envoy.serve({"clusters": {"app": hashed}, "routes": routes})
    told = await _explain(envoy, "/a%20b", "X-User: 1")
    assert [one.share for one in told.clusters[0].endpoints] == [0.5, 0.5]
    assert [note.partition(",")[0] for note in told.notes] == [
        "a key always has the same endpoint", "Envoy holds expressions and exact paths to the path as it is sent",
    ]  # fmt: skip
    assert any("first" in note for note in (await _explain(envoy, "/q?v=1&v=2")).notes)
    refused = await _explain(envoy, "/a", "X_User: 1")
    assert (refused.outcome, refused.status) == ("refused", 400)
    assert (await ask(envoy.address, get("/a", "X_User: 1"))).status == 400


async def test_the_explanation_follows_the_routing(envoy: EnvoyGateway) -> None:
    await envoy.serve({"clusters": {"app": cluster(9001)}, "routes": [route("one", "/one")]})
    assert (await _explain(envoy, "/one")).outcome == "forwarded"
    await envoy.serve({"clusters": {"app": cluster(9001)}, "routes": [route("two", "/two")]})
    assert (await _explain(envoy, "/one")).outcome == "no-route"
