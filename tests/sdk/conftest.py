"""One registry for all tests of the SDK; each test takes service names of its own."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from toska_tests.called import Services, called_services
from toska_tests.joined import Registry, Stage


@pytest.fixture(scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Registry]:
    """A registry that stays up."""
    started = Registry(tmp_path_factory.mktemp("registry"))
    await started.start()
    yield started
    started.stop()


@pytest.fixture
def stage(registry: Registry, tmp_path: Path) -> Stage:
    """Apps of this test join the shared registry."""
    return Stage(tmp_path, registry)


@pytest.fixture
async def services(registry: Registry) -> AsyncGenerator[Services]:
    """Services of this test's own in the shared registry."""
    async with called_services(registry) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_mesh_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TOSKA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOSKA_HOME", str(tmp_path / "no-mesh-here"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
