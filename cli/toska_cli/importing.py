"""Importing much, fast: how long `toska up` takes to start is how long its imports take."""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

_UNWANTED = "rich"


@contextmanager
def quick_imports() -> Generator[None]:
    """Import without what costs time and serves nothing.

    The collector is off: it would walk, again and again, objects that all stay (0.1 s of CPU). And Rich cannot be
    found: structlog and httpx load it with all of Pygments only because it is there (0.17 s), for tracebacks and a
    command line that we do not use.
    """
    modules = cast("dict[str, Any]", sys.modules)
    loaded = modules.get(_UNWANTED)
    modules[_UNWANTED] = None
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        del modules[_UNWANTED]
        if loaded is not None:
            modules[_UNWANTED] = loaded
