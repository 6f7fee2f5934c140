"""The filters that a worker has: one instance for each place in a route, kept over new tables."""

import json
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from toska_gateway.worker.filters.guard import Guard
from toska_gateway.worker.filters.loading import add_folder, load_filter
from toska_gateway.worker.filters.places import Place
from toska_gateway.worker.filters.policy import Filters

if TYPE_CHECKING:
    from toska_gateway.worker.plane import Plane


class FilterShelf:
    """Those that a new table names as the one before did go on with what they hold.

    Args:
        folder: Where modules are looked for that are not installed.
    """

    def __init__(self, folder: str) -> None:
        add_folder(folder)
        self._guard = Guard()
        self._guard.watch()
        self._places: WeakValueDictionary[str, Place] = WeakValueDictionary()

    def take(self, plane: "Plane", route: str, number: int, item: dict[str, Any]) -> Place:
        """The filter of a place.

        Raises:
            UnusableFilter: It cannot be had.
        """
        key = json.dumps([route, number, item], sort_keys=True)
        place = self._places.get(key)
        if place is None:
            instance = load_filter(item["use"], item["settings"])
            place = self._places[key] = Place(plane, self._guard, item["use"], route, instance, item["timeout"])
        return place


def compile_filters(settings: list[dict[str, Any]], route: str, plane: "Plane", folder: str) -> Filters | None:
    """The filters of a route, in order; none if there is not one that has a hook.

    Raises:
        UnusableFilter: One of them cannot be had.
    """
    if plane.filters is None:
        plane.filters = FilterShelf(folder)
    shelf = plane.filters
    places = [shelf.take(plane, route, number, item) for number, item in enumerate(settings)]
    hooked = any(place.on_request or place.on_response for place in places)
    return Filters(places) if hooked else None
