"""Requests of one route that Envoy has to be told apart, by method: each kind becomes a route of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from toska_common.contracts.routing import Route
from toska_common.envoy.retries import IDEMPOTENT, repeats_more_than_connects
from toska_common.envoy.words import Json

_IDEMPOTENCY_KEY: Json = {"name": "idempotency-key", "present_match": True}


@dataclass(frozen=True, slots=True)
class Variant:
    """Some of a route's requests: those of these methods (all, if there are none) that fit `headers`."""

    methods: tuple[str, ...] = ()
    idempotent: bool = True
    mirrored: bool = False
    headers: tuple[Json, ...] = ()


def variants(route: Route) -> Iterator[Variant]:
    """Every kind of request of a route, in the order in which they are asked for."""
    policies = route.policies
    tell_repeats = bool(route.to) and repeats_more_than_connects(policies)
    copied = frozenset(policies.mirror.methods) if policies.mirror is not None else frozenset[str]()
    kinds: dict[tuple[bool, bool], list[str]] = {}
    named = route.match.methods or tuple(sorted({*IDEMPOTENT, *copied} if tell_repeats else copied))
    for method in named:
        kinds.setdefault((not tell_repeats or method in IDEMPOTENT, method in copied), []).append(method)
    if tell_repeats and policies.retry.idempotency_key:
        keyed = tuple(method for method in named if method not in IDEMPOTENT)
        for mirrored in (True, False):
            here = tuple(method for method in keyed if (method in copied) is mirrored)
            if here:
                yield Variant(here, True, mirrored, (_IDEMPOTENCY_KEY,))
        if not route.match.methods:
            yield from (Variant(tuple(methods), *kind) for kind, methods in kinds.items() if kind[0])
            yield Variant((), True, False, (_IDEMPOTENCY_KEY,))
            kinds = {kind: methods for kind, methods in kinds.items() if not kind[0]}
    yield from (Variant(tuple(methods), *kind) for kind, methods in kinds.items())
    if not route.match.methods:
        yield Variant((), not tell_repeats, False)
