"""What users outside the repository get: wheels, in an environment that has nothing else of ours."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from toska_tests import echo_app
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


def _needed(wheels: Sequence[Path]) -> dict[str, Distribution]:
    """What wheels declare that they need, and what that needs in turn, of this environment, which is as the lock says.

    Taken from here, and not from an index: that took half a minute, and a network.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    # Of ours, what the wheels say: what is installed here says what held when it was.
    ours = {canonicalize_name(wheel.name.partition("-")[0]): _requires(wheel) for wheel in wheels}
    waiting = [one for lines in ours.values() for one in map(Requirement, lines) if _applies(one, "")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name not in ours:
                found[name] = distribution(name)
            lines = ours[name] if name in ours else found[name].requires or []
            waiting += [one for one in map(Requirement, lines) if _applies(one, extra)]
    return found


def _requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and (not extra or "extra" in str(requirement.marker))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with our wheels, and the dependencies that they declare, at the versions of the lock."""
    folder = tmp_path_factory.mktemp("wheels")
    _run(ROOT / "tools" / "dist", folder / "dist")
    environment = folder / "venv"
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    wheels = sorted((folder / "dist").glob("*.whl"))
    installed = next((environment / "lib").glob("python*/site-packages"))
    for needed in _needed(wheels).values():
        for file in needed.files or []:
            if ".." not in file.parts and file.suffix != ".pyc":
                target = installed / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(needed.locate_file(file)), target)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", "--no-input", "--no-compile", "--no-deps", "--no-index", *wheels)
    _run(*pip, "check")
    return environment / "bin"


def test_every_package_has_a_wheel_that_says_it_is_typed(clean: Path) -> None:
    installed = next((clean.parent / "lib").glob("python*/site-packages"))
    for package in ("toska_common", "toska_discovery", "toska_events", "toska_router", "toska_gateway", "toska_cli"):
        assert (installed / package / "py.typed").is_file()
    assert _run(clean / "toska", "version").startswith("toska ")


async def test_an_app_joins_a_mesh_with_nothing_but_the_wheels(clean: Path, tmp_path: Path) -> None:
    async with toska_up(tmp_path, command=clean / "toska") as mesh:
        await wait_until(
            lambda: answers(f"{mesh.gateway}/orders/42"), what="the examples, which nobody has compiled yet"
        )
        (tmp_path / "greetings.py").write_text(THREE_LINES)
        command = [clean / "python", "-m", "uvicorn", "greetings:app", "--port", str(free_port())]
        with running(command, tmp_path, environment=mesh.environment) as app:
            url = f"{mesh.gateway}/greetings/hello"
            await wait_until(lambda: answers(url), what=f"a route to greetings; it said: {app.stderr}")


def test_the_sdk_loads_nothing_that_it_does_not_need(clean: Path, tmp_path: Path) -> None:
    shutil.copy(Path(echo_app.__file__), tmp_path / "app.py")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import app; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in _run(clean / "python", "-c", program).split()}
    assert "toska_common" in loaded
    assert loaded.isdisjoint({"sqlalchemy", "grpc", "aio_pika", "dbos", "typer", "toska_gateway", "toska_router"})
