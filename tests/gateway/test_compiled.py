"""Machine code in place of the hot modules: taken if it fits, left aside if not. None of this needs a compiler."""

import ast
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import toska_gateway
from structlog.testing import capture_logs
from toska_gateway.compiled import (
    FOLDER,
    LIBRARY,
    MODULES,
    PACKAGE,
    STAMP,
    CompiledFinder,
    build_in,
    sources,
    stamp,
)
from toska_tests.gateways import running_gateway

_TELL = "import toska_gateway, toska_gateway.worker.plane as p; print(toska_gateway.COMPILED, p.__file__)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The gateway's sources, elsewhere, with a build that fits them and holds no machine code at all."""
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns(FOLDER, "__pycache__"))
    folder = copy / FOLDER
    folder.mkdir()
    (folder / STAMP).write_text(stamp(copy))
    return copy


def _told(path: Path, switch: str = "") -> tuple[str, str]:
    """What a process says that imports the gateway from `path`: whether it is compiled, and where a hot module is."""
    environment = {**os.environ, "PYTHONPATH": str(path), "TOSKA_GATEWAY_COMPILED": switch}
    told = subprocess.run([sys.executable, "-c", _TELL], env=environment, capture_output=True, text=True, check=True)
    compiled, _, file = told.stdout.strip().partition(" ")
    return compiled, file


def test_a_build_fits_the_sources_that_it_was_made_of(package: Path) -> None:
    assert build_in(package) == package / FOLDER
    assert stamp(package) == stamp(PACKAGE)


@pytest.mark.parametrize("module", MODULES)
def test_a_build_no_longer_fits_when_one_of_its_sources_changes(package: Path, module: str) -> None:
    with (package / f"{module}.py").open("a") as source:
        source.write("# changed\n")

    assert build_in(package) is None


def test_a_build_no_longer_fits_when_a_line_moves_to_the_next_source(package: Path) -> None:
    first, second = sources(package)[:2]
    text = first.read_text()
    first.write_text("")
    second.write_text(text + second.read_text())

    assert build_in(package) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"cpython-27 .so 00"])
def test_a_stamp_that_says_something_else_fits_nothing(package: Path, content: bytes) -> None:
    (package / FOLDER / STAMP).write_bytes(content)

    assert build_in(package) is None


def test_a_build_of_another_interpreter_does_not_fit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.implementation.cache_tag", "cpython-399")

    assert build_in(package) is None


def test_without_a_build_the_sources_run(package: Path) -> None:
    shutil.rmtree(package / FOLDER)

    assert _told(package.parent) == ("False", str(package / "worker" / "plane.py"))


@pytest.mark.parametrize("machine_code", [None, b"", b"made for something else"])
def test_machine_code_that_cannot_be_loaded_is_left_aside(package: Path, machine_code: bytes | None) -> None:
    if machine_code is not None:
        (package / FOLDER / f"{LIBRARY}__mypyc{EXTENSION_SUFFIXES[0]}").write_bytes(machine_code)

    assert _told(package.parent) == ("False", str(package / "worker" / "plane.py"))


@pytest.mark.parametrize("switch", ["0", "false", "no"])
def test_a_build_that_fits_is_left_aside_on_demand(switch: str) -> None:
    compiled, file = _told(PACKAGE.parent, switch)

    assert (compiled, Path(file).suffix) == ("False", ".py")


def test_a_build_that_fits_runs() -> None:
    """Without a build this says that nobody pretends to have one; `make test-compiled` has one."""
    fits = build_in(PACKAGE) is not None
    compiled, file = _told(PACKAGE.parent)

    assert (compiled, Path(file).suffix) == (str(fits), EXTENSION_SUFFIXES[0][-3:] if fits else ".py")
    assert fits or "TOSKA_TEST_COMPILED" not in os.environ


def test_only_hot_modules_are_found_in_a_build(package: Path) -> None:
    finder = CompiledFinder("toska_gateway", package, package / FOLDER)

    spec = finder.find_spec("toska_gateway.worker.exchange", None)
    assert spec is not None
    assert spec.origin == str(package / FOLDER / f"worker/exchange{EXTENSION_SUFFIXES[0]}")
    assert finder.find_spec("toska_gateway.worker.process", None) is None
    assert finder.find_spec("toska_gateway.worker", None) is None


def test_every_heir_of_a_compiled_class_is_compiled() -> None:
    hot = set(sources(PACKAGE))
    compiled = {name for path in hot for name, _ in _classes(path)}
    cold = [path for path in PACKAGE.rglob("*.py") if path not in hot]
    strays = {f"{path.stem}.{name}" for path in cold for name, bases in _classes(path) if compiled & bases}

    assert {"Caller", "Downstream", "Exchange"} <= compiled
    assert strays == set(), "name their modules in toska_gateway.compiled.MODULES"


def _classes(path: Path) -> list[tuple[str, set[str]]]:
    """The classes of a module, and what they inherit from."""
    return [
        (node.name, {base.id for base in node.bases if isinstance(base, ast.Name)})
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]


async def test_the_log_tells_of_each_worker_whether_it_is_compiled() -> None:
    with capture_logs() as logs:
        async with running_gateway():
            pass

    told = [line["compiled"] for line in logs if line["event"] == "gateway_worker_started"]
    assert told == [toska_gateway.COMPILED]
