"""The data plane's hot modules as machine code, if `make compile` has made it: the same sources, less processor time.

It lies in a folder beside the package, with a stamp over the sources and the interpreter. Whoever changes one of them,
has no compiler, or sets `TOSKA_GATEWAY_COMPILED=0` runs the modules as they are written; nothing else differs.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

FOLDER: Final = "_compiled"
STAMP: Final = "STAMP"
LIBRARY: Final = "toska_gateway_worker"
"""What the modules have in common lies in a file of this name, and a suffix that mypyc gives it."""
SWITCH: Final = "TOSKA_GATEWAY_COMPILED"
PACKAGE: Final = Path(__file__).parent
MODULES: Final = (
    "probe", *(f"worker/{name}" for name in (
        "allowances", "at_once", "attempts", "buckets", "cache/refresh", "caller", "client_connection", "cluster",
        "conditions", "dispatch", "downstream", "downstream_response", "drain", "edge/shadow", "endpoint", "exchange",
        "failover", "forwarding", "http1/__init__", "http1/bodies", "http1/fields", "http1/grammar", "http1/requests",
        "http1/responses", "http1/targets", "opening", "outbox", "passage", "paths", "plane", "rate_limit", "rival",
        "route", "shaping", "splits", "table", "tracing", "tunnel", "upstream", "upstream_request", "via",
    )),
)  # fmt: skip
"""What every request goes through, and every class that inherits from one of those: compiled classes have no heirs that
are not compiled."""


def sources(package: Path) -> list[Path]:
    """The files that are compiled."""
    return [package / f"{name}.py" for name in MODULES]


def stamp(package: Path) -> str:
    """What the machine code is made of, and for which interpreter."""
    digest = hashlib.sha256()
    for source in sources(package):
        content = source.read_bytes()
        digest.update(b"%d\n" % len(content) + content)
    return f"{sys.implementation.cache_tag} {EXTENSION_SUFFIXES[0]} {digest.hexdigest()}"


def build_in(package: Path) -> Path | None:
    """The folder with the machine code of a package's sources as they are now; `None` if it is not there."""
    folder = package / FOLDER
    try:
        return folder if (folder / STAMP).read_text() == stamp(package) else None
    except (OSError, UnicodeDecodeError):
        return None


class CompiledFinder:
    """Finds the compiled modules of a package, before their sources are found.

    Args:
        name: Of the package.
        package: Its folder.
        folder: Where the machine code is.
    """

    def __init__(self, name: str, package: Path, folder: Path) -> None:
        self._found: dict[str, tuple[Path, list[str] | None]] = {}
        for module in MODULES:
            file = folder / f"{module}{EXTENSION_SUFFIXES[0]}"
            parent, _, last = module.rpartition("/")
            if last == "__init__":  # a package
                self._found[f"{name}.{parent.replace('/', '.')}"] = file, [str(package / parent)]
            else:
                self._found[f"{name}.{module.replace('/', '.')}"] = file, None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What `importlib` asks of everything in `sys.meta_path`."""
        found = self._found.get(fullname)
        if found is None:
            return None
        file, locations = found
        return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=locations)


def prefer_compiled() -> bool:
    """Have the hot modules imported as machine code, if it is here and fits; tells whether."""
    # It decides about imports, so it cannot wait until settings are read.
    if os.environ.get(SWITCH, "").strip().lower() in ("0", "false", "no", "off"):
        return False
    folder = build_in(PACKAGE)
    if folder is None:
        return False
    name = f"{LIBRARY}__mypyc"
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}{EXTENSION_SUFFIXES[0]}")
    if spec is None or spec.loader is None:
        return False
    try:
        library = importlib.util.module_from_spec(spec)
    except ImportError:  # another machine's
        return False
    sys.modules[name] = library
    spec.loader.exec_module(library)
    sys.meta_path.insert(0, CompiledFinder(__package__ or "", PACKAGE, folder))
    return True
