"""Every problem document that the mesh answers with has an explanation."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import toska_common.errors
import toska_gateway.worker
from toska_common.errors import MeshError
from toska_gateway.problem_types import PROBLEM_TYPES, find_problem_type
from toska_gateway.worker.answers import TITLES


def _all_errors(kind: type[MeshError]) -> set[type[MeshError]]:
    return {kind}.union(*(_all_errors(child) for child in kind.__subclasses__()))


def _worker_codes() -> set[str]:
    """Codes as they stand in the data plane's source: beside a status, in a call."""
    folder = Path(toska_gateway.worker.__file__).parent
    source = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    return set(re.findall(r'\b[45][0-9]{2},\s*"([a-z][a-z-]+)"', source)) | TITLES.keys()


def test_each_error_of_our_packages_is_explained() -> None:
    for package in ("toska_common", "toska_gateway", "toska_discovery", "toska_events", "toska_router"):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if re.search(r"errors$|\.openapi\.|\.routing\.|\.clients\.|\.store$|backend$", module.name):
                importlib.import_module(module.name)
    errors = {kind for kind in _all_errors(MeshError) if kind.__module__.startswith("toska_")}
    assert len(errors) > 15
    missing = {kind.code for kind in errors} - PROBLEM_TYPES.keys()
    assert not missing, f"describe them in toska_gateway/problem_types.py: {sorted(missing)}"
    statuses = {kind.code: kind.status for kind in errors if kind is not toska_common.errors.MeshError}
    assert {code: PROBLEM_TYPES[code].status for code in statuses} == statuses


def test_each_code_of_the_data_plane_is_explained() -> None:
    codes = _worker_codes()
    assert {"no-route", "bad-framing", "upstream-timeout"} <= codes
    missing = codes - PROBLEM_TYPES.keys()
    assert not missing, f"describe them in toska_gateway/problem_types.py: {sorted(missing)}"
    assert {code: PROBLEM_TYPES[code].title for code in TITLES} == TITLES


@pytest.mark.parametrize(
    ("code", "status"), [("length-required", 411), ("not-implemented", 501), ("not-acceptable", 406)]
)
def test_a_code_that_is_a_status_s_name_is_explained_by_that(code: str, status: int) -> None:
    found = find_problem_type(code)
    assert found is not None
    assert (found.status, found.type) == (status, f"/problems/{code}")


@pytest.mark.parametrize("code", ["ok", "nothing", "", "moved-permanently"])
def test_what_is_no_problem_is_not_explained(code: str) -> None:
    assert find_problem_type(code) is None
