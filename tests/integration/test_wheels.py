"""What users outside the repository get: wheels, in an environment that has nothing else of ours."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toska_tests import echo_app
from toska_tests.clients import http_client
from toska_tests.meshes import answers, toska_up
from toska_tests.parts import ROOT
from toska_tests.ports import free_port
from toska_tests.programs import running
from toska_tests.waiting import wait_until

THREE_LINES = """
from fastapi import FastAPI
from toska_common import Mesh
app = FastAPI()
mesh = Mesh(app, name="greetings")

@app.get("/hello")
def hello() -> str:
    return "hello"
"""


def _run(*command: str | Path, within: int = 300) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=within, check=False
    )
    assert result.returncode == 0, f"{command[0]}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with our wheels, and the dependencies that they declare, at the versions of the lock."""
    folder = tmp_path_factory.mktemp("wheels")
    _run(ROOT / "tools" / "dist", folder / "dist")
    # Without the hashes, since these would be wanted of our own wheels too.
    pins = re.findall(r"^[A-Za-z0-9._-]+==[^\s\\]+(?: ; .+?)?(?= \\|$)", (ROOT / "requirements.lock").read_text(), re.M)
    (folder / "pins.txt").write_text("\n".join(pins))
    environment = folder / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    wheels = sorted((folder / "dist").glob("*.whl"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        environment / "bin" / "python",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
    ]
    _run(*pip, "--no-compile", "--constraint", folder / "pins.txt", *wheels)
    return environment / "bin"


def test_every_package_has_a_wheel_that_says_it_is_typed(clean: Path) -> None:
    installed = next((clean.parent / "lib").glob("python*/site-packages"))
    for package in ("toska_common", "toska_discovery", "toska_events", "toska_router", "toska_gateway", "toska_cli"):
        assert (installed / package / "py.typed").is_file()
    assert _run(clean / "toska", "version").startswith("toska ")


async def test_an_app_joins_a_mesh_with_nothing_but_the_wheels(clean: Path, tmp_path: Path) -> None:
    async with toska_up(tmp_path, command=clean / "toska") as mesh:
        async with http_client() as client:
            assert (await client.get(f"{mesh.gateway}/orders/42")).status_code == 200
        (tmp_path / "greetings.py").write_text(THREE_LINES)
        command = [clean / "uvicorn", "greetings:app", "--port", str(free_port())]
        with running(command, tmp_path, environment=mesh.environment) as app:
            url = f"{mesh.gateway}/greetings/hello"
            await wait_until(lambda: answers(url), what=f"a route to greetings; it said: {app.stderr}")


def test_the_sdk_loads_nothing_that_it_does_not_need(clean: Path, tmp_path: Path) -> None:
    shutil.copy(Path(echo_app.__file__), tmp_path / "app.py")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import app; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in _run(clean / "python", "-c", program).split()}
    assert "toska_common" in loaded
    assert loaded.isdisjoint({"sqlalchemy", "grpc", "aio_pika", "dbos", "typer", "toska_gateway", "toska_router"})
