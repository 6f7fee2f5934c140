"""What `from toska_common import Mesh` loads, and what it leaves for whoever needs it."""

import subprocess
import sys

import pytest


def modules_after(statement: str) -> set[str]:
    """The top-level modules, and ours in full, that a statement loads in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name if name.startswith("toska") else name.partition(".")[0] for name in found.stdout.split()}


def test_joining_loads_nothing_that_only_extras_or_callers_need() -> None:
    loaded = modules_after("from toska_common import Mesh")
    assert not loaded & {"sqlalchemy", "grpc", "aio_pika", "dbos", "httpx", "aiohttp", "tenacity", "ruamel", "typer"}


@pytest.mark.parametrize("module", ["balancing", "breaker", "errors", "trace"])
def test_what_the_data_plane_shares_loads_no_framework(module: str) -> None:
    loaded = modules_after(f"import toska_common.{module}")
    assert not loaded & {"fastapi", "starlette", "pydantic", "structlog", "uvicorn", "prometheus_client"}


def test_names_of_calls_are_there_when_they_are_asked_for() -> None:
    loaded = modules_after("from toska_common.mesh import MeshClient, NoEndpoints")
    assert "httpx" in loaded
