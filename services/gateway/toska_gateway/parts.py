"""What a gateway is made of, as its handlers see it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from toska_common.contracts.gateway import ReloadResult
from toska_common.contracts.router import FileStatus

from toska_gateway.data_plane import DataPlane
from toska_gateway.follower import SnapshotFollower
from toska_gateway.openapi.catalog import ApiCatalog
from toska_gateway.routing import Routing
from toska_gateway.sagas import ServiceSagas
from toska_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class FileParts:
    """What only a gateway with a routing file has."""

    status: Callable[[], FileStatus]
    reload: Callable[[], Awaitable[ReloadResult]]


@dataclass(frozen=True, slots=True)
class MeshParts:
    """What only a gateway in a mesh has."""

    follower: SnapshotFollower
    catalog: ApiCatalog
    sagas: ServiceSagas


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one open gateway; `started_at` is on the loop's clock."""

    settings: Settings
    data_plane: DataPlane
    routing: Routing
    mesh: MeshParts | None = None
    file: FileParts | None = None
    started_at: float = field(default_factory=anyio.current_time)


class PartsSlot:
    """Where handlers find the parts: they are opened after the app is built, and before a listener accepts."""

    def __init__(self) -> None:
        self._parts: Parts | None = None

    def fill(self, parts: Parts) -> None:
        """Put the parts in."""
        self._parts = parts

    def get(self) -> Parts:
        """The parts.

        Raises:
            RuntimeError: The gateway is not open.
        """
        if self._parts is None:
            raise RuntimeError("the gateway is not open")
        return self._parts

    def find(self) -> Parts | None:
        """The parts, if the gateway is open."""
        return self._parts
