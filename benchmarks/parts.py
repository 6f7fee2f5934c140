"""Where the programs are that a bench compares with: on PATH, or unpacked by `tools/test-parts`."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import BenchError

ROOT = Path(__file__).resolve().parent.parent
UNPACKED = ROOT / ".cache" / "parts" / "root"
_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")


@dataclass(frozen=True, slots=True)
class Program:
    """A program and what it needs in its environment to find its own libraries."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def version(self, flag: str) -> str:
        """First line of what the program says of itself."""
        done = subprocess.run(
            [self.path, flag],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        lines = (done.stdout + done.stderr).strip().splitlines()
        return lines[0] if lines else "unknown"


def find_program(name: str) -> Program | None:
    """Look on PATH, in Debian's folders for servers, and among the unpacked parts."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]
    if found := shutil.which(name, path=os.pathsep.join(places)):
        return Program(Path(found))
    for folder in _FOLDERS:
        path = UNPACKED / folder / name
        if os.access(path, os.X_OK):
            return Program(path, {"LD_LIBRARY_PATH": os.pathsep.join(map(str, _library_folders()))})
    return None


def get_program(name: str) -> Program:
    """Like `find_program`, for what a bench cannot do without.

    Raises:
        BenchError: It is nowhere; the message names the command that fetches it.
    """
    program = find_program(name)
    if program is None:
        raise BenchError(f"{name} is not installed; tools/test-parts bench fetches it")
    return program


def get_script(name: str) -> Program:
    """A command of this virtual environment: `toska`, `envoy`.

    Raises:
        BenchError: It is not installed here.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise BenchError(f"{path} is missing; make bench installs what the benches need")
    return Program(path)


def _library_folders() -> list[Path]:
    return [UNPACKED / "usr" / "lib", *sorted((UNPACKED / "usr" / "lib").glob("*-linux-gnu*"))]
