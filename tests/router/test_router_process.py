"""`python -m toska_router`: the router as a process of its own."""

import signal
import sys
from pathlib import Path

from toska_tests.ports import free_ports
from toska_tests.programs import running
from toska_tests.waiting import wait_until

COMMAND = [sys.executable, "-m", "toska_router"]


async def test_a_bad_routing_file_ends_it_with_every_problem_and_code_2(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("routes:\n  - {name: a, match: {path: /a}, to: lost}\n  - {name: b}\n")
    with running(COMMAND, tmp_path, environment={"TOSKA_ROUTER_ROUTES": str(file)}) as router:
        assert await router.exit_code() == 2
        assert "line 2: routes[0].to" in router.stderr
        assert "line 3: routes[1].match: is required" in router.stderr
        assert "Traceback" not in router.stderr


async def test_stored_routes_that_lost_their_file_end_it_with_a_hint(home: Path, tmp_path: Path) -> None:
    (home / "router").mkdir()
    (home / "router" / "routes.json").write_text('{"routes": [{"name": "a", "match": {"path": "/a"}, "to": "lost"}]}')
    with running(COMMAND, tmp_path) as router:
        assert await router.exit_code() == 2
        assert "TOSKA_ROUTER_ROUTES" in router.stderr
        assert '"lost"' in router.stderr


async def test_a_wrong_setting_is_named_with_its_variable(home: Path, tmp_path: Path) -> None:
    with running(COMMAND, tmp_path, environment={"TOSKA_ROUTER_ROUTES_INTERVAL": "often"}) as router:
        assert await router.exit_code() == 2
        assert "TOSKA_ROUTER_ROUTES_INTERVAL" in router.stderr


async def test_sigterm_stops_it_also_while_the_registry_is_away(home: Path, tmp_path: Path) -> None:
    port = free_ports(2)
    environment = {
        "TOSKA_ROUTER_PORT": str(port),
        "TOSKA_REGISTRY_URL": f"http://127.0.0.1:{port + 1}",
        "TOSKA_LOG_FORMAT": "json",
    }
    with running(COMMAND, tmp_path, environment=environment) as router:
        await wait_until(lambda: "service_started" in router.stderr, what="it has started")
        router.send(signal.SIGTERM)
        assert await router.exit_code() == 0
