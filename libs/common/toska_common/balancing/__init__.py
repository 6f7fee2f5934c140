"""Picking one of several equivalent endpoints. Pure: no I/O, time and randomness handed in.

A balancer is built for one set of endpoints and thrown away when that changes (`rotation` says which endpoints, and
with which weights); what must outlive it, such as requests in flight, is the endpoints' own. Picking costs the same
for ten endpoints and for a hundred thousand.

    RoundRobin     in turn, by weight, spread evenly (earliest deadline first)
    Random         by weight, knowing nothing
    LeastRequest   the less loaded of two drawn at random ("power of two choices"): nearly as good as asking all, and
                   without the herd that forms when everybody knows who is least loaded
    PeakEwma       the same, by latency times load: quick to believe a slow answer, slow to forget it
    RingHash       by a key; if an endpoint leaves, only its keys move
    Maglev         by a key; evener and quicker than the ring, a few more keys move
"""

from toska_common.balancing.base import Balancer
from toska_common.balancing.chance import LeastRequest, Random
from toska_common.balancing.ewma import LatencyAverage, PeakEwma
from toska_common.balancing.maglev import Maglev
from toska_common.balancing.ring import RingHash
from toska_common.balancing.rotation import Rotation, RotationPolicy, rotate
from toska_common.balancing.turns import RoundRobin, interleave

__all__ = [
    "Balancer",
    "LatencyAverage",
    "LeastRequest",
    "Maglev",
    "PeakEwma",
    "Random",
    "RingHash",
    "Rotation",
    "RotationPolicy",
    "RoundRobin",
    "interleave",
    "rotate",
]
