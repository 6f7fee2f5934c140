"""What `tools/compile` runs, where mypyc is installed."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import cast

# Only where `tools/compile` runs this is it installed.
from mypyc.build import mypycify  # pyright: ignore[reportMissingImports, reportUnknownVariableType]
from setuptools import Extension, setup
from toska_gateway.compiled import FOLDER, LIBRARY, PACKAGE, STAMP, sources, stamp

ROOT = Path(__file__).resolve().parent.parent
_OPTIONS = """\
[mypy]
follow_imports = silent
ignore_missing_imports = True
explicit_package_bases = True
namespace_packages = True
"""


def compile_into(built: Path) -> None:
    """Have mypyc write C of the modules, and the C compiler machine code of that."""
    config = built / "mypy.ini"
    config.write_text(_OPTIONS)
    os.environ["MYPYPATH"] = os.pathsep.join(str(ROOT / part) for part in ("services/gateway", "libs/common"))
    os.chdir(built)  # where mypyc leaves what it writes
    files = [f"--config-file={config}", f"--python-executable={ROOT}/.venv/bin/python", *map(str, sources(PACKAGE))]
    modules = cast("list[Extension]", mypycify(files, group_name=LIBRARY, opt_level="3", debug_level="0"))
    build = ["--quiet", "build_ext", "--build-lib", str(built / "out"), "--build-temp", str(built / "temp")]
    setup(name=LIBRARY, ext_modules=modules, script_args=build)


def main() -> None:
    """Compile, and put what came of it where the gateway looks for it."""
    made_of = stamp(PACKAGE)  # before: who edits a source meanwhile gets no stamp that fits
    with tempfile.TemporaryDirectory(prefix="toska-compile-") as place:
        built = Path(place)
        compile_into(built)
        folder = PACKAGE / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(built / "out" / PACKAGE.name, folder)
        for library in (built / "out").glob("*.so"):
            shutil.copy(library, folder)
        (folder / STAMP).write_text(made_of)  # at last: without it nothing of this is used
    print(f"compiled {len(sources(PACKAGE))} modules into {folder.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
