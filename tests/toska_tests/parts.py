"""Programs that tests need and pip does not bring; `tools/test-parts` installs them."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_UNPACKED = ROOT / ".cache" / "parts" / "root"
_FOLDERS = ("usr/bin", "usr/sbin", "usr/lib/chromium")


def find_program(name: str, variable: str = "") -> Path | None:
    """Where `name` is: in the environment `variable`, on PATH, or unpacked by `tools/test-parts`."""
    named = os.environ.get(variable, "") if variable else ""
    if named:
        return Path(named)
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    # Chromium's start script in usr/bin has absolute paths in it; the program beside its data runs from anywhere.
    found = (_UNPACKED / folder / name for folder in reversed(_FOLDERS))
    return next((path for path in found if os.access(path, os.X_OK)), None)


def program(name: str, variable: str = "") -> Path:
    """`find_program`, failing the test that needs it, and in words that say what to do."""
    found = find_program(name, variable)
    if found is None:
        pytest.fail(f"{name} is not installed; run tools/test-parts" + (f" or set {variable}" if variable else ""))
    return found


def consul() -> Path:
    """HashiCorp's Consul, which contract tests of the registry compare with."""
    return program("consul", "CONSUL_BIN")


def chromium() -> Path:
    """Debian's Chromium, for Playwright's `executable_path`."""
    return program("chromium", "CHROMIUM_BIN")


def roots() -> tuple[Path, Path]:
    """Where Debian's packages are: installed, or unpacked by `tools/test-parts`."""
    return Path("/"), _UNPACKED


def postgres(name: str) -> Path:
    """One of PostgreSQL's programs; Debian keeps them beside one another by version, and not on PATH."""
    for root in roots():
        found = sorted(root.glob(f"usr/lib/postgresql/*/bin/{name}"))
        if found:
            return found[-1]
    return program(name)


def environment() -> dict[str, str]:
    """What a program needs that was unpacked instead of installed: its libraries."""
    folders = sorted(path for path in _UNPACKED.glob("usr/lib/*-linux-gnu*") if path.is_dir())
    if not folders:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(map(str, [*folders, *(path for path in _UNPACKED.glob("lib/*-linux-gnu*"))]))}
