"""What `make` calls, where the machine lacks something: a clear line, and nothing touched."""

import os
import subprocess
from pathlib import Path

from toska_tests.parts import ROOT


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def _fake_python(folder: Path, body: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_a_python_that_is_too_old_is_named() -> None:
    result = _run("tools/install", "requirements.lock", PYTHON="/bin/false")
    assert result.returncode == 2
    assert "needs Python 3.11 or newer" in result.stderr


def test_a_python_that_is_not_there_is_named() -> None:
    result = _run("tools/install", "requirements.lock", PYTHON="python-of-nobody")
    assert result.returncode == 2
    assert "there is no python-of-nobody; install Python 3.11 or newer" in result.stderr


def test_a_missing_venv_module_is_named(tmp_path: Path) -> None:
    """Debian ships it apart, as python3-venv."""
    python = _fake_python(tmp_path, 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "install").write_text((ROOT / "tools" / "install").read_text())
    result = _run("bash", str(tmp_path / "tools" / "install"), "requirements.lock", PYTHON=python)
    assert result.returncode == 2
    assert "apt install python3-venv" in result.stderr


def test_make_names_what_it_can_do() -> None:
    words = {line.split()[1] for line in _run("make", "help").stdout.splitlines()}
    assert {"up", "down", "test", "check", "fmt", "bench", "dist", "lock"} <= words


def test_parts_that_are_there_are_not_installed_again() -> None:
    result = _run("tools/test-parts", "test")
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_purpose_of_parts_is_refused() -> None:
    result = _run("tools/test-parts", "play")
    assert result.returncode == 1
    assert "say test or bench, not play" in result.stderr
