"""Checks that the registry itself makes: what they ask, and in which words they say what they found."""

from pathlib import Path
from typing import Any

from toska_tests.discovery_rig import ConsulPort, consul_port, discovery_in
from toska_tests.ports import free_port
from toska_tests.probed import CannedServer, answer, grpc_server, hang
from toska_tests.waiting import wait_until


async def register(port: ConsulPort, name: str, **check: Any) -> None:
    interval = {} if any(field.startswith("Alias") for field in check) or "TTL" in check else {"Interval": "1s"}
    answer = await port.put("agent/service/register", {"Name": name, "Check": {**interval, **check}})
    assert (answer.status, answer.text) == (200, "")


async def until(port: ConsulPort, name: str, status: str, *, within: float = 8) -> str:
    """Wait for the verdict on a service's one check, and return its output."""
    found: list[dict[str, Any]] = []

    async def has_it() -> bool:
        found[:] = await port.read(f"health/checks/{name}")
        return [check["Status"] for check in found] == [status]

    await wait_until(has_it, within=within, what=f"{name} is {status}: {found}")
    return found[0]["Output"]


async def test_every_outcome_of_an_http_check_has_consuls_words(
    port: ConsulPort, name: str, server: CannedServer
) -> None:
    url, closed = server.url, free_port()
    server.answers |= {
        "/ok": answer(body=b"fine\n"),
        "/none": answer("204 No Content"),
        "/busy": answer("429 Too Many Requests", b"later"),
        "/missing": answer("404 Not Found", b"what?"),
        "/broken": answer("500 Internal Error", b"oh"),
        "/long": answer(body=b"".join(b"%05d" % number for number in range(2000))),
        "/binary": answer(body=b"\xff\xfeabc"),
        "/old": answer("302 Found", location="/ok"),
        "/loop": answer("302 Found", location="/loop"),
        "/lost": answer("302 Found"),
        "/ftp": answer("302 Found", location="ftp://x/y"),
        "/hang": hang,
        "/closes": b"",
    }
    long = "".join(f"{number:05}" for number in range(2000))
    expected: dict[str, tuple[dict[str, Any], str, str]] = {
        "ok": ({"HTTP": f"{url}/ok"}, "passing", f"HTTP GET {url}/ok: 200 OK Output: fine\n"),
        "none": ({"HTTP": f"{url}/none"}, "passing", f"HTTP GET {url}/none: 204 No Content Output: "),
        "busy": ({"HTTP": f"{url}/busy"}, "warning", f"HTTP GET {url}/busy: 429 Too Many Requests Output: later"),
        "missing": ({"HTTP": f"{url}/missing"}, "critical", f"HTTP GET {url}/missing: 404 Not Found Output: what?"),
        "broken": ({"HTTP": f"{url}/broken"}, "critical", f"HTTP GET {url}/broken: 500 Internal Error Output: oh"),
        "long": ({"HTTP": f"{url}/long"}, "passing", f"HTTP GET {url}/long: 200 OK Output: {long[-4096:]}"),
        "short": (
            {"HTTP": f"{url}/long", "OutputMaxSize": 7},
            "passing",
            f"HTTP GET {url}/long: 200 OK Output: {long[-7:]}",
        ),
        "binary": ({"HTTP": f"{url}/binary"}, "passing", f"HTTP GET {url}/binary: 200 OK Output: \ufffd\ufffdabc"),
        "old": (
            {"HTTP": f"{url}/old", "Method": "PUT", "Body": "b"},
            "passing",
            f"HTTP PUT {url}/old: 200 OK Output: fine\n",
        ),
        "loop": ({"HTTP": f"{url}/loop"}, "critical", 'Get "/loop": stopped after 10 redirects'),
        "lost": ({"HTTP": f"{url}/lost"}, "critical", f'Get "{url}/lost": 302 response missing Location header'),
        "ftp": ({"HTTP": f"{url}/ftp"}, "critical", 'Get "ftp://x/y": unsupported protocol scheme "ftp"'),
        "hang": (
            {"HTTP": f"{url}/hang", "Timeout": "200ms"},
            "critical",
            f'Get "{url}/hang": context deadline exceeded (Client.Timeout exceeded while awaiting headers)',
        ),
        "closes": ({"HTTP": f"{url}/closes"}, "critical", f'Get "{url}/closes": EOF'),
        "closed": (
            {"HTTP": f"http://127.0.0.1:{closed}/"},
            "critical",
            f'Get "http://127.0.0.1:{closed}/": dial tcp 127.0.0.1:{closed}: connect: connection refused',
        ),
    }  # fmt: skip
    await _expect(port, name, expected)


async def _expect(port: ConsulPort, name: str, expected: dict[str, tuple[dict[str, Any], str, str]]) -> None:
    for key, (check, status, _) in expected.items():
        # Each starts as what it is not, so that a verdict is one that was found.
        start = "critical" if status != "critical" else "passing"
        await register(port, f"{name}-{key}", Status=start, **check)
    found = {key: await until(port, f"{name}-{key}", status) for key, (_, status, _) in expected.items()}
    assert found == {key: output for key, (_, _, output) in expected.items()}


async def test_an_http_check_sends_what_consul_sends(port: ConsulPort, name: str, server: CannedServer) -> None:
    server.answers["/a%2Fb?c=d%2Fe"] = answer()
    header = {"X-Token": ["one"], "Host": ["orders.example"]}
    await register(port, name, HTTP=f"{server.url}/a%2Fb?c=d%2Fe", Method="POST", Header=header, Body='{"deep": true}')
    await until(port, name, "passing")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%2Fb?c=d%2Fe HTTP/1.1"
    assert body == b'{"deep": true}'
    # (The one coding that Go offers by itself, ours does not: what is shown is what was sent.)
    assert {line.lower() for line in lines[1:] if not line.lower().startswith("accept-encoding:")} == {
        "host: orders.example",
        "user-agent: consul health check",
        "accept: text/plain, text/*, */*",
        "x-token: one",
        "content-length: 14",
        "connection: close",
    }


async def test_tcp_and_grpc_checks_have_consuls_words(port: ConsulPort, name: str, server: CannedServer) -> None:
    closed = free_port()
    here, nobody = f"127.0.0.1:{server.port}", f"127.0.0.1:{closed}"
    refused = f"dial tcp {nobody}: connect: connection refused"
    async with grpc_server() as grpc:
        await grpc.say("", serving=True)
        await grpc.say("shop.Orders", serving=False)
        rpc = f"127.0.0.1:{grpc.port}"
        await _expect(
            port,
            name,
            {
                "tcp": ({"TCP": here}, "passing", f"TCP connect {here}: Success"),
                "closed": ({"TCP": nobody}, "critical", refused),
                "bare": ({"TCP": "127.0.0.1"}, "critical", "dial tcp: address 127.0.0.1: missing port in address"),
                "high": ({"TCP": "127.0.0.1:99999"}, "critical", "dial tcp: address 99999: invalid port"),
                "grpc": ({"GRPC": rpc}, "passing", f"gRPC check {rpc}: success"),
                "not": (
                    {"GRPC": f"{rpc}/shop.Orders"},
                    "critical",
                    "gRPC application didn't report service healthy",
                ),
                "unknown": (
                    {"GRPC": f"{rpc}/shop.None"},
                    "critical",
                    "rpc error: code = NotFound desc = ",
                ),
                "dead": (
                    {"GRPC": nobody},
                    "critical",
                    "rpc error: code = Unavailable desc = connection error: desc = "
                    f'"transport: Error while dialing {refused}"',
                ),
            },
        )


async def test_a_check_shows_its_kind(port: ConsulPort, name: str, server: CannedServer) -> None:
    here = f"127.0.0.1:{server.port}"
    for kind, check in {"http": {"HTTP": server.url}, "tcp": {"TCP": here}, "grpc": {"GRPC": here}}.items():
        await register(port, f"{name}-{kind}", **check)
    await register(port, f"{name}-alias", AliasService=name)
    checks = await port.read("agent/checks")
    for kind in ("http", "tcp", "grpc"):
        assert checks[f"service:{name}-{kind}"]["Type"] == kind
        assert checks[f"service:{name}-{kind}"]["Definition"] == {}
    assert checks[f"service:{name}-alias"]["Type"] == "alias"
    reported = await port.put(f"agent/check/pass/service:{name}-http")
    assert (reported.status, reported.text) == (500, f'CheckID "service:{name}-http" does not have associated TTL')


async def test_a_verdict_changes_after_enough_of_the_same_in_a_row(
    port: ConsulPort, name: str, server: CannedServer
) -> None:
    server.answers["/"] = answer()
    await register(port, name, HTTP=f"{server.url}/", SuccessBeforePassing=2, FailuresBeforeCritical=2)
    await until(port, name, "passing")
    assert len(server.requests) == 1  # the first verdict of all counts at once
    server.answers["/"] = answer("500 Internal Server Error")
    await until(port, name, "critical")
    assert len(server.requests) == 3
    server.answers["/"] = answer()
    await until(port, name, "passing")
    assert len(server.requests) == 5


async def test_an_alias_follows_the_checks_of_another_instance(port: ConsulPort, name: str) -> None:
    await register(port, f"{name}-alias", AliasService=name)
    missing = await until(port, f"{name}-alias", "critical")
    assert missing in {"", f"Service {name} could not be found on node "}
    answer = await port.put("agent/service/register", {"Name": name})
    assert answer.status == 200
    assert await until(port, f"{name}-alias", "passing") == "No checks found."
    checks = [
        {"CheckID": f"{name}-{status}", "Name": f"the {status}", "TTL": "1h", "Status": "passing"}
        for status in ("warn", "fail")
    ]
    assert (await port.put("agent/service/register", {"Name": name, "Checks": checks})).status == 200
    await port.put(f"agent/check/warn/{name}-warn?note=hot")
    assert await until(port, f"{name}-alias", "warning") == 'Aliased check "the warn" failing: hot'
    await port.put(f"agent/check/fail/{name}-fail?note=burnt")
    assert await until(port, f"{name}-alias", "critical") == 'Aliased check "the fail" failing: burnt'
    await port.put(f"agent/check/pass/{name}-fail")
    await port.put(f"agent/check/pass/{name}-warn")
    assert await until(port, f"{name}-alias", "passing") == "All checks passing."


async def test_an_alias_of_the_node_is_as_well_as_the_node(port: ConsulPort, name: str) -> None:
    node = (await port.read("agent/self"))["Config"]["NodeName"]
    await register(port, name, AliasNode=node)
    assert await until(port, name, "passing") == "All checks passing."


async def test_a_check_that_goes_is_asked_no_more(port: ConsulPort, name: str, server: CannedServer) -> None:
    server.answers["/"] = answer()
    server.answers["/other"] = answer()
    await register(port, name, HTTP=f"{server.url}/")
    await register(port, f"{name}-other", HTTP=f"{server.url}/other")
    await until(port, name, "passing")
    assert (await port.put(f"agent/service/deregister/{name}")).status == 200
    asked, others = server.paths().count("/"), server.paths().count("/other")
    await wait_until(lambda: server.paths().count("/other") >= others + 2)
    assert server.paths().count("/") == asked


# From here on: of our registry alone.


async def test_checks_go_on_after_a_restart(tmp_path: Path, server: CannedServer) -> None:
    server.answers["/"] = answer()
    for _ in range(2):
        async with (
            discovery_in(tmp_path) as discovery,
            consul_port("embedded", discovery.consul, discovery.credentials.admin) as port,
        ):
            if not server.requests:
                await register(port, "orders", HTTP=f"{server.url}/")
                await register(port, "web", AliasService="orders")
            await until(port, "orders", "passing")
            await until(port, "web", "passing")
            seen = len(server.requests)
            await wait_until(lambda seen=seen: len(server.requests) > seen)
    async with (
        discovery_in(tmp_path) as discovery,
        consul_port("embedded", discovery.consul, discovery.credentials.admin) as port,
    ):
        server.answers["/"] = answer("500 Internal Server Error")
        await until(port, "orders", "critical")
        assert (await until(port, "web", "critical")).startswith("Aliased check \"Service 'orders' check\" failing: ")


async def test_scripts_run_where_an_operator_enables_them(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path, enable_script_checks=True) as discovery,
        consul_port("embedded", discovery.consul, discovery.credentials.admin) as port,
    ):
        await register(port, "orders", Args=["/bin/sh", "-c", "echo careful; exit 1"])
        assert await until(port, "orders", "warning") == "careful\n"
        await register(port, "web", ScriptArgs=["echo", "$((1+1))"], Shell="/bin/sh", Status="critical")
        assert await until(port, "web", "passing") == "2\n"


async def test_aliases_of_each_other_settle(ours: ConsulPort, name: str) -> None:
    for one in ("a", "b", "c"):
        assert (await ours.put("agent/service/register", {"Name": f"{name}-{one}"})).status == 200
    for one, other in (("a", "b"), ("b", "c"), ("c", "a")):
        await register(ours, f"{name}-{one}", AliasService=f"{name}-{other}", Status="passing")
    for one in ("a", "b", "c"):
        await until(ours, f"{name}-{one}", "passing")
    index = (await ours.get(f"health/service/{name}-a")).index
    assert (await ours.get(f"health/service/{name}-a?index={index}&wait=200ms")).index == index


async def test_an_instance_that_is_probed_stays_while_it_is_critical(tmp_path: Path) -> None:
    async with (
        discovery_in(tmp_path, removal_after="50ms") as discovery,
        consul_port("embedded", discovery.consul, discovery.credentials.admin) as port,
    ):
        await register(port, "probed", TCP=f"127.0.0.1:{free_port()}", Status="passing")
        await register(port, "renewed", TTL="50ms", Status="passing")

        async def is_gone() -> bool:
            return await port.read("health/service/renewed") == []

        assert "connection refused" in await until(port, "probed", "critical")
        await wait_until(is_gone)
        await register(port, "renewed", TTL="50ms", Status="passing")
        await wait_until(is_gone)
        assert len(await port.read("health/service/probed")) == 1
