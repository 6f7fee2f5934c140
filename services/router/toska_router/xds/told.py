"""What a client was told, kept as a difference to a set that all streams share.

A hundred clients of ten thousand clusters know a million things, nearly all of them the same: those of a set that each
client has settled on. Only what deviates from it is kept for each.
"""

from collections.abc import Callable

from toska_router.xds.resources import NOTHING, Resource, TypeResources


class Told:
    """Resources as a client was last sent them; `wants` tells which of the shared set it subscribes to."""

    __slots__ = ("_apart", "_base", "_wants")

    def __init__(self, wants: Callable[[Resource], bool]) -> None:
        self._wants = wants
        self._base = NOTHING
        self._apart: dict[str, Resource | None] = {}

    def get(self, name: str) -> Resource | None:
        """The resource as it was sent; `None` if it was not, or was taken back."""
        if name in self._apart:
            return self._apart[name]
        found = self._base.get(name)
        return found if found is not None and self._wants(found) else None

    def note(self, resource: Resource) -> None:
        """It was sent."""
        self._apart[resource.name] = resource

    def forget(self, name: str) -> None:
        """It counts as never sent."""
        if self._base.get(name) is not None:
            self._apart[name] = None
        else:
            self._apart.pop(name, None)

    def restrict(self, names: set[str]) -> None:
        """Forget all but `names`, which are all that is wanted from now on."""
        for name in self._apart.keys() - names:
            del self._apart[name]

    def settle(self, base: TypeResources) -> None:
        """Everything that is wanted was sent as it is in `base`."""
        self._base = base
        self._apart.clear()

    @property
    def deviations(self) -> int:
        """How much is kept for this client alone."""
        return len(self._apart)
