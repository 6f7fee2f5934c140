"""One type of resources on one stream: what the client asked for, what it was told, what it is owed.

    request ──▶ names, wildcard ──┐
    resources ──▶ follow ─────────┴▶ owed, gone ──▶ make, unmake ──▶ in flight ──▶ accepted
                                          ▲                              │
                                          └── refused: taken apart ◀─────┘

Pure: no clock, no wire. At most one response is in flight; meanwhile only names are gathered, and what is sent next is
as it is then, so a client that is slow is owed the newest state and nothing of what was in between.

A response that is refused is taken apart: its resources are sent again in halves, until the one that is wrong stands
alone. It is not sent again before it is different, and it keeps none of the others from the client. Whole types of the
state of the world cannot be taken apart: there Envoy goes on with what it had until the wrong one is mended.

Sources: "xDS REST and gRPC protocol", §ACK/NACK and resource type instance version, §How the client specifies what
resources to return, §Deleting Resources, §Subscribing to Resources, §Unsubscribing from Resources.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from toska_router.xds.exchange import (
    MAX_REASON,
    MAX_REFUSED_NAMES,
    Acceptance,
    Refusal,
    Request,
    Response,
    Verdict,
)
from toska_router.xds.resources import Resource, TypeResources
from toska_router.xds.told import Told
from toska_router.xds.types import WHOLE_TYPES

WILDCARD = "*"
MAX_RESPONSE_BYTES = 3 * 1024 * 1024
"""Of resources in one response where it can be divided: gRPC's clients take 4 MiB."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A response without an answer: `news` is what in it was new, `missing` what it said not to exist."""

    nonce: str
    version: str
    news: tuple[Resource, ...]
    missing: tuple[str, ...] = ()


class Subscription:
    """The state of one type on one stream.

    Args:
        type_url: The type.
        incremental: Which variant of the protocol the stream speaks.
        resources: What there is of the type.
    """

    def __init__(self, type_url: str, resources: TypeResources, *, incremental: bool) -> None:
        self.type_url = type_url
        self.names: set[str] = set()
        self.wildcard = False
        self.in_flight: InFlight | None = None
        self.accepted_version = ""
        self.refusals: dict[str, Refusal] = {}
        """Standing refusals by the name of what is refused; of a whole type under `*`."""
        self._incremental = incremental
        self._whole = not incremental and type_url in WHOLE_TYPES
        self._current = resources
        self._told = Told(self._wants)
        self._owed: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._asked: set[str] = set()
        self._fallback: TypeResources | None = None
        self._leaning: set[str] = set()
        self._apart: deque[tuple[str, ...]] = deque()
        self._nonce = ""
        self._greets = False
        self._overdue = False
        self._begun = False
        self._named = False

    # What the client says.

    def receive(self, request: Request) -> Verdict | None:
        """Take a request in; the verdict if it answers the response in flight."""
        first, self._begun = not self._begun, True
        if not self._incremental and not first and request.nonce and request.nonce != self._nonce:
            return None  # §Resource updates: a stale nonce; the answer to the newer response is on its way
        verdict = self._judge(request)
        if self._incremental:
            self._change_names(request, first=first)
        else:
            self._replace_names(request, first=first)
        self._settle()
        return verdict

    # What there is.

    def follow(self, resources: TypeResources) -> None:
        """What there is from now on."""
        if resources is self._current:
            return
        before, self._current = self._current, resources
        for name in resources.names_that_differ(before):
            self._look(name)
        self._settle()

    def lean_on(self, fallback: TypeResources | None) -> None:
        """Serve what is gone from these, until it is not wanted any more: others still refer to it."""
        if fallback is self._fallback:
            return
        self._fallback = fallback
        for name in [*self._leaning]:
            self._look(name)
        self._settle()

    def owe_again(self, name: str) -> None:
        """Send this resource once more, if the client has it."""
        if self._told.get(name) is not None:
            self._distrust(name)

    # What is to be sent.

    @property
    def owes(self) -> bool:
        """Whether something is new to the client."""
        return bool(self._owed) or self._greets

    @property
    def removes(self) -> bool:
        """Whether the client has something that is gone."""
        return bool(self._gone)

    @property
    def unanswered(self) -> bool:
        """Whether a response is in flight, and not for too long."""
        return self.in_flight is not None and not self._overdue

    @property
    def settled(self) -> bool:
        """Whether the client has told, of all that it should have, that it took it over or refused it."""
        return not (self.owes or self.removes or self.in_flight)

    def is_up_to_date(self, resources: TypeResources) -> bool:
        """Whether it is settled, with these resources."""
        return self.settled and self._current is resources

    def let_go(self) -> None:
        """Wait no longer for the answer that is missing."""
        self._overdue = self.in_flight is not None

    def make(self, nonce: str, *, removing: bool) -> Response:
        """What is owed; with `removing`, a whole response leaves out what is gone."""
        self._greets = False
        if self._whole:
            return self._make_whole(nonce, removing=removing)
        names = self._pick()
        found = tuple(resource for name in names if (resource := self._find(name)) is not None)
        missing = tuple(name for name in names if self._find(name) is None)
        for resource in found:
            self._told.note(resource)
        self._asked.difference_update(names)
        for name in names:
            del self._owed[name]
        return self._send(Response(self.type_url, nonce, self._current.version, found, missing), found, missing)

    def unmake(self, nonce: str) -> Response:
        """Take away what is gone."""
        if self._whole:
            return self._make_whole(nonce, removing=True)
        gone = tuple(self._gone)
        self._gone.clear()
        for name in gone:
            self._told.forget(name)
        return self._send(Response(self.type_url, nonce, self._current.version, removed=gone), ())

    # How.

    def _judge(self, request: Request) -> Verdict | None:
        sent = self.in_flight
        if sent is None or request.nonce != sent.nonce:
            return None
        self.in_flight, self._overdue = None, False
        if request.error is None:
            self.accepted_version = sent.version
            for name in [WILDCARD] if self._whole else [resource.name for resource in sent.news]:
                self.refusals.pop(name, None)
            return Acceptance(self.type_url, sent.version)
        names = tuple(resource.name for resource in sent.news)
        refusal = Refusal(self.type_url, sent.version, names[:MAX_REFUSED_NAMES], request.error[:MAX_REASON])
        if self._whole:
            self.refusals[WILDCARD] = refusal
        elif len(names) == 1:
            if self._find(names[0]) is not None:
                self.refusals[names[0]] = refusal
        elif names:
            self._take_apart(names)
        if names:
            for name in self.names.intersection(sent.missing):  # they were in bad company
                self._ask_for(name)
        return refusal

    def _take_apart(self, names: tuple[str, ...]) -> None:
        half = len(names) // 2
        self._apart.extendleft((names[half:], names[:half]))
        for name in names:
            self._distrust(name)

    def _distrust(self, name: str) -> None:
        """It may have an older version than it was sent: owe it again, and take it away should it be gone before."""
        self._told.note(Resource(name, ""))
        self._look(name)

    def _replace_names(self, request: Request, *, first: bool) -> None:
        names = {self._shared(name) for name in request.names}
        self._named = self._named or bool(names)
        wildcard = WILDCARD in names or not self._named
        names.discard(WILDCARD)
        if self.wildcard and not wildcard:
            self._drop_wildcard()
        for name in self.names - names:
            self._drop(name)
        for name in names - self.names:
            self._add(name)
        if wildcard and not self.wildcard:
            self._add_wildcard()
        if first and self._whole and wildcard and not names and request.version == self._current.version:
            # It has it from an earlier stream, perhaps another server's.
            self._owed.clear()
            self._greets = False
            self.accepted_version = request.version

    def _change_names(self, request: Request, *, first: bool) -> None:
        asks_for_all = first and not request.subscribe and not request.unsubscribe
        if asks_for_all or WILDCARD in request.subscribe:
            self._add_wildcard()
        for name in request.subscribe:
            if name != WILDCARD:
                self._add(self._shared(name))
        if first:
            for name, version in request.known.items():
                self._know(name, version)
        for name in request.unsubscribe:
            if name == WILDCARD:
                self._drop_wildcard()
            elif name in self.names:
                self._drop(name)
                if self.wildcard:
                    self._add_again(name)

    def _know(self, name: str, version: str) -> None:
        if not self.wildcard and name not in self.names:
            return
        found = self._current.get(name)
        self._told.note(found if found is not None and found.version == version else Resource(name, version))
        self._greets = False
        self._look(name)

    def _add(self, name: str) -> None:
        self.names.add(name)
        self._add_again(name)

    def _add_again(self, name: str) -> None:
        """Tell of this one whatever the client was told before."""
        self._told.forget(name)
        self._ask_for(name)

    def _ask_for(self, name: str) -> None:
        if self._incremental:
            self._asked.add(name)
        self._look(name)

    def _add_wildcard(self) -> None:
        self.wildcard = self._greets = True
        for resource in self._current.wildcard:
            if resource.name not in self.names:
                self._told.forget(resource.name)
                self._look(resource.name)

    def _drop(self, name: str) -> None:
        self.names.discard(name)
        self._asked.discard(name)
        if not self.wildcard:
            self._told.forget(name)
        self._look(name)

    def _drop_wildcard(self) -> None:
        self.wildcard = self._greets = False
        self._told.restrict(self.names)
        for name in (self._owed.keys() | self._gone.keys()) - self.names:
            self._look(name)

    def _shared(self, name: str) -> str:
        """The name as the resource has it, so that streams share one string."""
        found = self._current.get(name)
        return name if found is None else found.name

    def _wants(self, resource: Resource) -> bool:
        return (self.wildcard and not resource.on_demand) or resource.name in self.names

    def _find(self, name: str) -> Resource | None:
        found = self._current.get(name)
        if found is None and self._fallback is not None:
            found = self._fallback.get(name)
        return found if found is not None and self._wants(found) else None

    def _look(self, name: str) -> None:
        """See anew whether a resource is owed, or gone."""
        self._owed.pop(name, None)
        self._gone.pop(name, None)
        wanted, told = self._find(name), self._told.get(name)
        if wanted is not None and self._current.get(name) is None:
            self._leaning.add(name)
        else:
            self._leaning.discard(name)
        if wanted is not None:
            if told is None or told.version != wanted.version:
                self._owed[name] = None
            else:
                self._asked.discard(name)
            return
        self.refusals.pop(name, None)
        if name in self._asked:
            self._owed[name] = None
        elif told is not None and (self._incremental or self._whole):  # §Deleting Resources: else it cannot be told
            self._gone[name] = None

    def _settle(self) -> None:
        if not self._owed and not self._gone and not self._leaning:
            self._told.settle(self._current)

    def _pick(self) -> list[str]:
        while self._apart:
            group = [name for name in self._apart.popleft() if name in self._owed]
            if group:
                return group
        picked: list[str] = []
        size = 0
        for name in self._owed:
            found = self._find(name)
            size += 0 if found is None else len(found.value)
            if picked and size > MAX_RESPONSE_BYTES:
                break
            picked.append(name)
        return picked

    def _make_whole(self, nonce: str, *, removing: bool) -> Response:
        current = self._current
        news = tuple(resource for name in self._owed if (resource := self._find(name)) is not None)
        kept = [] if removing else [told for name in self._gone if (told := self._told.get(name)) is not None]
        common = current.wildcard if self.wildcard else ()
        named = tuple(found for name in sorted(self.names) if (found := current.get(name)) is not None)
        if self.wildcard:
            named = tuple(resource for resource in named if resource.on_demand)
        self._owed.clear()
        self._told.settle(current)
        if removing:
            self._gone.clear()
        for resource in kept:
            self._told.note(resource)
        whole = current if common and not named and not kept else None
        resources = common if whole is not None else (*common, *named, *kept)
        return self._send(Response(self.type_url, nonce, _version(current, kept), resources, whole=whole), news)

    def _send(self, response: Response, news: tuple[Resource, ...], missing: tuple[str, ...] = ()) -> Response:
        self.in_flight, self._overdue = InFlight(response.nonce, response.version, news, missing), False
        self._nonce = response.nonce
        self._settle()
        return response


def _version(current: TypeResources, kept: Iterable[Resource]) -> str:
    """The version of a set with some that are about to go; it is told from that of the set alone."""
    going = sorted(f"{resource.name}\0{resource.version}" for resource in kept)
    if not going:
        return current.version
    return f"{current.version}+{blake2b(chr(0).join(going).encode(), digest_size=4).hexdigest()}"
