"""Who is where on this machine, and whose port has closed: lists of listeners in, suspects out.

An instance is only ever suspected after its port was seen open: one whose port never was in a list (it is in another
network namespace, or UDP, or not open yet) is left to its lease. A look costs what came and went since the last one,
however many instances there are.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address

from toska_common.contracts.discovery import Health

from toska_discovery.check import CheckKind
from toska_discovery.instance import Instance, canonical_address
from toska_discovery.node import OWN_NODE
from toska_discovery.vacancies.listeners import Listener, unmapped

_WILDCARDS = (bytes(4), bytes(16))


class Ledger:
    """The instances with leases on this machine, by port.

    Args:
        is_ours: Whether an IP address is this machine's.
    """

    def __init__(self, is_ours: Callable[[str], bool]) -> None:
        self._is_ours = is_ours
        self._by_port: dict[int, dict[str, bytes]] = {}
        self._places: dict[str, Listener] = {}
        self._new: set[str] = set()
        self._open: set[str] = set()
        self._listening: frozenset[Listener] = frozenset()

    def __bool__(self) -> bool:
        return bool(self._places)

    @property
    def watched(self) -> int:
        """How many instances have a port that was seen open, and whose end shows."""
        return len(self._open)

    def take(self, changes: Mapping[str, Instance | None]) -> None:
        """Hear of instances that came, changed or went, by key."""
        for key, instance in changes.items():
            place = None if instance is None else self._place(instance)
            before = self._places.get(key)
            if place == before:
                continue
            if before is not None:
                self._forget(key, before)
            if place is not None:
                self._places[key] = place
                self._by_port.setdefault(place[1], {})[key] = place[0]
                self._new.add(key)

    def look(self, listening: frozenset[Listener]) -> list[str]:
        """Keys of the instances whose port was open and is in `listening` no more."""
        before, self._listening = self._listening, listening
        self._open |= {key for key in self._new if _covers(listening, *self._places[key])}
        self._new.clear()
        for key, place in self._on_ports(listening - before):
            if _covers(listening, *place):
                self._open.add(key)
        suspects = [
            key
            for key, place in self._on_ports(before - listening)
            if key in self._open and not _covers(listening, *place)
        ]
        self._open.difference_update(suspects)
        return suspects

    def _on_ports(self, listeners: Iterable[Listener]) -> Iterable[tuple[str, Listener]]:
        for port in {port for _, port in listeners}:
            for key, address in self._by_port.get(port, {}).items():
                yield key, (address, port)

    def _place(self, instance: Instance) -> Listener | None:
        if instance.node != OWN_NODE or not instance.service.port:
            return None
        if not any(check.definition.kind is CheckKind.TTL for check in instance.checks.values()):
            return None
        address = canonical_address(instance.service.address)
        try:
            packed = ip_address(address).packed
        except ValueError:
            return None  # a name, which may stand for many machines
        return (unmapped(packed), instance.service.port) if self._is_ours(address) else None

    def _forget(self, key: str, place: Listener) -> None:
        del self._places[key]
        members = self._by_port[place[1]]
        del members[key]
        if not members:
            del self._by_port[place[1]]
        self._new.discard(key)
        self._open.discard(key)


def lease_of(instance: Instance) -> str | None:
    """The id of the check that stands for an instance's life, unless that is critical already."""
    renewed = {
        check_id
        for check_id, check in instance.checks.items()
        if check.definition.kind is CheckKind.TTL and check.status is not Health.CRITICAL
    }
    own = f"service:{instance.service.id}"
    return own if own in renewed else min(renewed, default=None)


def _covers(listening: frozenset[Listener], address: bytes, port: int) -> bool:
    # `::` mostly takes IPv4 as well; where it does not, this errs to the side of the living.
    return any((place, port) in listening for place in (address, *_WILDCARDS))
