"""`toska routes`: a file applied to a real router, and what it has, printed."""

import json
import subprocess
from pathlib import Path

import pytest
from anyio.to_thread import run_sync
from toska_cli.admin_api import AdminApi
from toska_cli.routes import apply_document, export_document, read_document
from toska_common.errors import ConfigurationError, MeshError
from toska_tests.meshes import TOSKA
from toska_tests.programs import finished
from toska_tests.routers import RunningRouter

FILE = """
clusters:
  blue: {endpoints: [{address: 127.0.0.1, port: 9001}]}
  green: {endpoints: [{address: 127.0.0.1, port: 9002}]}
policies:
  strict: {security_headers: null, timeout: 5s}
routes:
  - {name: shop, match: {path_prefix: /shop}, to: blue, policies_from: strict}
"""


@pytest.fixture
def registry_kind() -> str:
    return "embedded"


async def toska(router: RunningRouter, home: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    places = ("--router", str(router.http.base_url), "--home", str(home))
    return await finished([TOSKA, "routes", *words, *places], cwd=home)


async def test_a_file_is_applied_looked_at_and_exported(router: RunningRouter, home: Path) -> None:
    file = home / "mesh.yaml"
    file.write_text(FILE)
    made = await toska(router, home, "apply", str(file), "-m", "größer")
    assert made.returncode == 0, made.stderr.decode()
    lines = made.stdout.decode().splitlines()
    added = {"cluster blue", "cluster green", "policy strict", "route shop"}
    assert set(lines[:-1]) == {f"added    {one}" for one in added}
    assert lines[-1] == "revision 1"
    [revision] = await router.read("revisions")
    assert revision["reason"] == "größer"

    file.write_text(FILE.replace("to: blue", "to: green"))
    seen = (await toska(router, home, "apply", str(file), "--dry-run")).stdout.decode()
    assert seen == (
        "changed  route shop\n"
        '           to[0].cluster: "blue" -> "green"\n'
        "gateways would see of routes: shop (changed)\n"
        "           and of clusters: nothing\n"
        "dry run: nothing was changed\n"
    )
    exported = (await toska(router, home, "export")).stdout
    api = AdminApi(str(router.http.base_url).rstrip("/"), (home / "admin.token").read_text().strip())
    await run_sync(lambda: apply_document(api, exported, prune=True, dry_run=False))
    assert len(await router.read("revisions")) == 1


async def test_what_is_left_out_goes_only_if_asked_to(
    router: RunningRouter, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api = AdminApi(str(router.http.base_url).rstrip("/"), (home / "admin.token").read_text().strip())

    async def apply(text: str, *, prune: bool = False, dry_run: bool = False, as_json: bool = False) -> str:
        capsys.readouterr()
        await run_sync(lambda: apply_document(api, text.encode(), prune=prune, dry_run=dry_run, as_json=as_json))
        return capsys.readouterr().out

    await apply(FILE)
    less = '{"clusters": {"blue": {"endpoints": [{"address": "127.0.0.1", "port": 9001}]}}}'
    assert "nothing to change" in await apply(less)
    assert "removed  route shop" in await apply(less, prune=True, dry_run=True)
    assert len(await router.read("routes")) == 1
    assert json.loads((await apply(less, prune=True, as_json=True)).splitlines()[-1])["revision"] == 2
    assert await router.read("routes") == []
    await run_sync(export_document, api)
    assert "blue" in capsys.readouterr().out
    with pytest.raises(MeshError, match=r'line 2: routes\[0\]\.macth: unknown key \(did you mean "match"\?\)'):
        await apply("routes:\n- {name: a, macth: {path: /a}, to: blue}\n")
    with pytest.raises(MeshError, match="empty"):
        await apply("", prune=True)
    with pytest.raises(ConfigurationError, match="cannot read /nowhere"):
        read_document("/nowhere")
