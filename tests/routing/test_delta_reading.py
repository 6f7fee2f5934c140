"""A large delta is read piece by piece, and comes to the same as one that is read at once."""

import json
import random

import pytest
from toska_common.contracts.routing import (
    Cluster,
    Endpoint,
    Match,
    Route,
    RoutingDocument,
    SnapshotDelta,
    WeightedCluster,
)
from toska_common.routing.delta import build_delta
from toska_common.routing.pools import pool
from toska_common.routing.reading import SMALL, read_delta
from toska_common.routing.snapshot import build_snapshot, build_table

COUNT = 300


def large() -> bytes:
    document = RoutingDocument(
        clusters={f"c{n}": Cluster(service=f"s{n}") for n in range(COUNT)},
        routes=tuple(
            Route(name=f"r{n}", match=Match(path=f"/ä{n}"), to=(WeightedCluster(cluster=f"c{n}"),))
            for n in range(COUNT)
        ),
    )
    pools = {f"s{n}": pool([Endpoint(address="10.0.0.1", port=port) for port in (n + 1, n + 2)]) for n in range(COUNT)}
    snapshot = build_snapshot(build_table(document), pools)
    return build_delta("", None, snapshot, snapshot.version).model_dump_json(exclude_defaults=True).encode()


LARGE = large()


@pytest.mark.parametrize("indent", [None, 1])
def test_what_is_read_in_pieces_is_what_is_read_at_once(indent: int | None) -> None:
    text = json.dumps(json.loads(LARGE), indent=indent).encode()
    assert len(text) > SMALL
    assert read_delta(text) == SnapshotDelta.model_validate_json(text)


def test_what_is_not_whole_is_refused_wherever_it_ends() -> None:
    ends = random.Random(7).sample(range(1, len(LARGE) - 1), 40)
    for end in [*ends, len(LARGE) - 1]:
        with pytest.raises(ValueError, match=r"\w"):
            read_delta(LARGE[:end])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"name":"r7"', b'"name":7'),
        (b'"version":', b'"version":[],"x":'),
        (b'"routes":[', b'"routes":{'),
        (b'"clusters":{', b'"clusters":{1:{},'),
        (b'"clusters":{', b'"clusters":{"c":[],'),
        (b'"endpoints":{', b'"endpoints":{"c":5,'),
    ],
)
def test_what_is_no_delta_is_refused(before: bytes, after: bytes) -> None:
    assert before in LARGE
    with pytest.raises(ValueError, match=r"\w"):
        read_delta(LARGE.replace(before, after, 1))


@pytest.mark.parametrize("more", [b"x", b"{}", b","])
def test_nothing_may_come_after_the_end(more: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_delta(LARGE + more)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_delta(LARGE[:-1] + b',"x":' + b"[" * 100_000 + b"}")
