"""Hosts of the routing as targets of gRPC's own xDS clients: splits, canaries by header, what they cannot follow."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from toska_common.contracts.routing import Route, RouteTable
from toska_router.programming.routed_targets import RoutedTargets, Unfit, target_routes
from toska_router.xds import types
from toska_router.xds.targets import HeaderTest, TargetRoute
from toska_tests.grpc_servers import named_server
from toska_tests.programs import Program, running
from toska_tests.routers import StartRouter
from toska_tests.waiting import wait_until

WITHIN_S = 30.0
CALLS = 160
_CALLER = Path(__file__).parents[1] / "toska_tests" / "apps" / "xds_caller.py"
HOST = "shop.internal"


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


def route(name: str = "shop", **fields: Any) -> Route:
    match = {"host": HOST, "path_prefix": "/", **fields.pop("match", {})}
    return Route.model_validate({"name": name, "match": match, "to": "blue", **fields})


def split(blue: int, green: int) -> list[dict[str, Any]]:
    return [{"cluster": "blue", "weight": blue}, {"cluster": "green", "weight": green}]


async def counted(caller: Program, fits: Callable[[dict[str, int]], bool]) -> None:
    """Wait until one whole round of calls was answered so."""

    def is_so() -> bool:
        lines = caller.stdout.splitlines()
        return bool(lines) and fits(json.loads(lines[-1]))

    await wait_until(is_so, within=WITHIN_S, what=f"a round; it said {caller.stdout[-500:]!r} {caller.stderr[-500:]!r}")


async def test_a_grpc_client_obeys_a_split_its_change_and_a_canary_by_header(
    start_router: StartRouter, tmp_path: Path
) -> None:
    async with named_server("one") as one, named_server("two") as two, start_router(xds=True, xds_port=0) as router:
        for name, port in (("blue", one), ("green", two)):
            await router.put(f"clusters/{name}", {"endpoints": [{"address": "127.0.0.1", "port": port}]})
        body = {"match": {"host": HOST, "path_prefix": "/echo"}, "to": split(3, 1)}
        assert (await router.put("routes/shop", body)).status_code == 201

        async def listens() -> bool:
            status = await router.read("xds")
            return status["listening"] and status["version"] != ""

        await wait_until(listens, within=WITHIN_S)
        file = tmp_path / "xds.json"
        file.write_text(json.dumps(await router.read("xds/bootstrap/grpc")))
        environment = {"GRPC_XDS_BOOTSTRAP": str(file)}
        command = [sys.executable, _CALLER, f"xds:///{HOST}", str(CALLS)]
        with (
            running(command, tmp_path, environment=environment) as anybody,
            running([*command, "x-canary=1"], tmp_path, environment=environment) as tester,
        ):
            # A quarter of 160 is 40; beyond 10 and 70 is five times the usual deviation.
            await counted(anybody, lambda seen: 10 <= seen.get("two", 0) <= 70 and sum(seen.values()) == CALLS)
            canary = {"cluster": "green", "when": {"headers": {"x-canary": "1"}}}
            await router.put("routes/shop", {**body, "to": [canary, {"cluster": "blue"}]})
            await counted(tester, lambda seen: seen == {"two": CALLS})
            await counted(anybody, lambda seen: seen == {"one": CALLS})
            await router.put("routes/shop", {**body, "to": "green"})
            await counted(anybody, lambda seen: seen == {"two": CALLS})

            await router.put("routes/shop", {**body, "to": "blue", "strip_prefix": True})

            async def is_told() -> bool:
                return bool((await router.read("xds"))["target_problems"])

            await wait_until(is_told, within=WITHIN_S)
            rounds = len(anybody.stdout.splitlines())
            await wait_until(lambda: len(anybody.stdout.splitlines()) > rounds + 1, within=WITHIN_S)
            assert json.loads(anybody.stdout.splitlines()[-1]) == {"two": CALLS}
            assert "failed" not in anybody.stdout + tester.stdout
            (problem,) = (await router.read("xds"))["target_problems"]
            assert problem["field"] == "routes.shop"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, [TargetRoute({"blue": 1})]),
        ({"match": {"methods": ["GET"]}}, []),
        (
            {"match": {"methods": ["GET", "POST"], "path_prefix": None, "path": "/a/B"}},
            [TargetRoute({"blue": 1}, "/a/B")],
        ),
        ({"match": {"path_prefix": None, "path_regex": "/a/(B|C)"}}, [TargetRoute({"blue": 1}, regex="/a/(B|C)")]),
        (
            {"match": {"path_prefix": "/shop.Orders"}, "to": split(9, 0), "policies": {"timeout": "2s"}},
            [
                TargetRoute({"blue": 9}, path="/shop.Orders", timeout=timedelta(seconds=2)),
                TargetRoute({"blue": 9}, prefix="/shop.Orders/", timeout=timedelta(seconds=2)),
            ],
        ),
        (
            {
                "match": {"headers": {"a": {"prefix": "b"}}},
                "to": [{"cluster": "green", "when": {"headers": {"c": {"present": True}}}}, *split(1, 2)],
            },
            [
                TargetRoute({"green": 1}, headers=(HeaderTest("a", prefix="b"), HeaderTest("c", present=True))),
                TargetRoute({"blue": 1, "green": 2}, headers=(HeaderTest("a", prefix="b"),)),
            ],
        ),
    ],
)
def test_routes_are_told_in_words_of_grpc(fields: dict[str, Any], told: list[TargetRoute]) -> None:
    assert target_routes(route(**fields)) == told


@pytest.mark.parametrize(
    "fields",
    [
        {"to": (), "redirect": {"to": "/new"}},
        {"to": split(1, 1), "sticky": {"header": "x-user"}},
        {"match": {"path_prefix": "/a"}, "strip_prefix": True},
        {"policies": {"rewrite": {"host": "other.internal"}}},
        {"match": {"cookies": {"a": "b"}}},
        {"match": {"query": {"a": "b"}}},
        {"match": {"client_ip": ["10.0.0.0/8"]}},
        {"match": {"except_prefixes": ["/a"]}},
        {"match": {"path_prefix": None, "path_template": "/a/{b}"}},
        {"match": {"headers": {"a": {"exact": "b", "invert": True}}}},
        {"to": [{"cluster": "green", "when": {"cookies": {"a": "b"}}}, {"cluster": "blue"}]},
    ],
)
def test_what_grpc_s_clients_cannot_follow_is_named(fields: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        target_routes(route(**fields))


def test_a_host_keeps_its_last_routes_and_what_is_the_same_is_not_made_again() -> None:
    targets = RoutedTargets()
    good, other = route(), route("other", match={"host": "other.internal"})
    wild, without = route("wild", match={"host": "*.internal"}), route("any", match={"host": None})
    targets.update(RouteTable(routes=(good, other, wild, without)))
    first = [*targets.resources(())]
    assert [name for found in first for url, name in found if url == types.LISTENER] == [HOST, "other.internal"]
    assert [len(found) for found in first] == [2, 2]

    broken = route(strip_prefix=True)
    targets.update(RouteTable(routes=(broken, other)))
    assert [*targets.resources(())] == first
    assert [finding.location for finding in targets.problems] == [("routes", "shop")]
    targets.update(RouteTable(routes=(route(to="green"), other)))
    again = [*targets.resources({"other.internal"})]
    assert len(again) == 1
    assert again[0][types.LISTENER, HOST] is first[0][types.LISTENER, HOST]
    assert again[0] != first[0]
    assert not targets.problems
    targets.update(RouteTable())
    assert not [*targets.resources(())]
