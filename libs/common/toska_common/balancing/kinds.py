"""Balancers under the names that the routing contract has for them."""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Final

from toska_common.balancing.base import Balancer
from toska_common.balancing.chance import LeastRequest, Random
from toska_common.balancing.ewma import PeakEwma
from toska_common.balancing.maglev import Maglev
from toska_common.balancing.ring import RingHash
from toska_common.balancing.turns import RoundRobin

BALANCERS: Final[Mapping[str, type[Balancer[Any]]]] = {
    "round_robin": RoundRobin,
    "weighted_round_robin": RoundRobin,
    "random": Random,
    "least_request": LeastRequest,
    "peak_ewma": PeakEwma,
    "ip_hash": Maglev,
    "ring_hash": RingHash,
    "maglev": Maglev,
}
IN_STEPS: Final[Mapping[str, Callable[[Sequence[Any], Sequence[float]], Generator[None, None, Balancer[Any]]]]] = {
    "ip_hash": Maglev[Any].in_steps,
    "ring_hash": RingHash[Any].in_steps,
    "maglev": Maglev[Any].in_steps,
}
"""Those that go by a key, and take long to make."""
