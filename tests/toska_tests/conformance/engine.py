"""Data planes that the cases are played to."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from toska_tests.conformance.envoy_differences import ENVOY_DIFFERENCES
from toska_tests.envoys import EnvoyGateway, running_envoy
from toska_tests.gateways import Gateway, running_gateway


class Serving(Protocol):
    """An engine that runs."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        ...

    async def serve(self, document: Mapping[str, Any]) -> None:
        """Put a routing document in force; returns once every new request goes by it."""
        ...


class Engine(Protocol):
    """A kind of data plane.

    Attributes:
        name: What it is called in test ids.
        cannot: Cases that it does not pass, by name, with the reason. They are run all the same, and one that passes
            has to leave this list.
    """

    name: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]]

    def running(self) -> AbstractAsyncContextManager[Serving]:
        """One of it, until the block ends."""
        ...


class PythonEngine:
    """The gateway's own workers."""

    name: ClassVar[str] = "python"
    cannot: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def running(self) -> AbstractAsyncContextManager[Gateway]:
        """A supervisor with one worker."""
        return running_gateway()


class EnvoyEngine:
    """A real Envoy, told what to do by the gateway's engine for it."""

    name: ClassVar[str] = "envoy"
    cannot: ClassVar[Mapping[str, str]] = ENVOY_DIFFERENCES

    def running(self) -> AbstractAsyncContextManager[EnvoyGateway]:
        """One Envoy with one thread."""
        return running_envoy()


ENGINES: tuple[type[Engine], ...] = (PythonEngine, EnvoyEngine)
