"""A conversation with the xDS protocol's state machine: what a client says, and what it hears back."""

from collections.abc import Mapping

from toska_router.xds.exchange import Request, Response, Verdict
from toska_router.xds.resources import Resource, ResourceSet, TypeResources
from toska_router.xds.stream import Stream


def resource_set(resources: Mapping[str, Mapping[str, str]], *, on_demand: frozenset[str] = frozenset()) -> ResourceSet:
    """Resources by type URL and name, each by its version; clusters have endpoints of their own name."""
    return ResourceSet(
        {
            type_url: TypeResources(
                Resource(name, version, version.encode(), name in on_demand, name) for name, version in versions.items()
            )
            for type_url, versions in resources.items()
        }
    )


class Talk:
    """One client's stream; what it hears is drained after each thing that it says."""

    def __init__(self, resources: ResourceSet, *, incremental: bool, aggregated: bool = True) -> None:
        self.stream = Stream(incremental=incremental, aggregated=aggregated)
        self._resources = resources
        self.heard: list[Response] = []
        self.verdict: Verdict | None = None

    def say(self, request: Request) -> list[Response]:
        """Send a request; the responses to it."""
        self.verdict = self.stream.receive(request, self._resources)
        return self.hear()

    def change(self, resources: ResourceSet) -> list[Response]:
        """Let the resources be others; the responses that go out unasked."""
        self._resources = resources
        return self.hear()

    def hear(self) -> list[Response]:
        """What the server sends now."""
        said: list[Response] = []
        while (response := self.stream.next_response(self._resources)) is not None:
            said.append(response)
        self.heard += said
        return said

    def accept(self, response: Response, *names: str) -> list[Response]:
        """Acknowledge a response, as a client does that subscribes to `names` (state of the world)."""
        return self.say(Request(response.type_url, nonce=response.nonce, version=response.version, names=names))

    def refuse(self, response: Response, reason: str, *names: str) -> list[Response]:
        """Refuse a response."""
        return self.say(Request(response.type_url, nonce=response.nonce, error=reason, names=names))


def named(responses: list[Response]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Responses as (type, names of resources, names removed), in the order of sending."""
    return [
        (
            response.type_url.rpartition(".")[2],
            tuple(sorted(each.name for each in response.resources)),
            tuple(sorted(response.removed)),
        )
        for response in responses
    ]
