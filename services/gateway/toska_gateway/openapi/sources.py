"""Where the OpenAPI document of a service is: at an instance that says so, or at a part of the mesh itself."""

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from toska_common.clients.consul import ConsulClient, ServiceEntry
from toska_common.contracts.discovery import META_OPENAPI, META_VERSION
from toska_common.errors import UpstreamError, UpstreamUnavailable

from toska_gateway.addresses import split_url
from toska_gateway.instance_calls import Refusal
from toska_gateway.openapi.fetch import DocumentFetcher, allow_any

_TRIES: Final = 3


class NoDocument(UpstreamUnavailable):
    """The service has live instances, and none of them offers a document."""

    code, title = "no-openapi-document", "No OpenAPI document"


@dataclass(frozen=True, slots=True)
class Place:
    """One address that offers a document."""

    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Who offers a service's document now; a new `key` means that it may be another document."""

    key: Hashable
    places: tuple[Place, ...]


class DocumentSource(Protocol):
    """Finds and fetches documents of services."""

    async def find(self, service: str) -> Offer:
        """Who offers the document.

        Raises:
            NoDocument: Nobody does.
            MeshError: It cannot be told now.
        """
        ...

    async def fetch(self, offer: Offer) -> bytes:
        """The document.

        Raises:
            UpstreamError: It cannot be had.
        """
        ...


class RegistrySource:
    """Documents of users' services: a path in the metadata of a passing instance, on its own address."""

    def __init__(self, consul: ConsulClient, fetcher: DocumentFetcher, refusal: Refusal) -> None:
        self._consul = consul
        self._fetcher = fetcher
        self._refusal = refusal

    async def find(self, service: str) -> Offer:
        entries, _ = await self._consul.health_service(service, passing=True)
        if not entries:
            raise UpstreamUnavailable("it has no passing instance now")
        offering = [entry for entry in entries if entry.service.meta.get(META_OPENAPI)]
        if not offering:
            raise NoDocument(f"none of its instances has {META_OPENAPI} in its metadata")
        # The newest instance first: during a rollout its document is the one that stays.
        offering.sort(key=lambda entry: (-entry.service.create_index, entry.service.id))
        return Offer(frozenset(map(_identity, offering)), tuple(map(_place, offering)))

    async def fetch(self, offer: Offer) -> bytes:
        failure = UpstreamError("nobody offers it")
        for place in offer.places[:_TRIES]:
            try:
                return await self._fetcher.fetch(place.host, place.port, place.path, self._refusal)
            except UpstreamError as error:
                failure = UpstreamError(f"{place.host}:{place.port}{place.path}: {error.detail}")
        raise failure


class MeshSource:
    """Documents of the mesh's own services, at the addresses that the settings name.

    Args:
        fetcher: Fetches them.
        urls: Base URL by service.
        token: The admin token, for listeners that ask for it.
        own: By service, those that are served by this very process.
    """

    def __init__(
        self, fetcher: DocumentFetcher, urls: Mapping[str, str], token: str, own: Mapping[str, Callable[[], Any]]
    ) -> None:
        self._fetcher = fetcher
        self._urls = urls
        self._token = token
        self._own = own

    async def find(self, service: str) -> Offer:
        if service not in self._own and service not in self._urls:
            raise NoDocument("it is no part of this mesh")
        host, port = split_url(self._urls.get(service, ""))
        return Offer(service, (Place(host, port, "/openapi.json"),))

    async def fetch(self, offer: Offer) -> bytes:
        own = self._own.get(str(offer.key))
        if own is not None:
            return json.dumps(own()).encode()
        place = offer.places[0]
        return await self._fetcher.fetch(place.host, place.port, place.path, allow_any, token=self._token)


def _identity(entry: ServiceEntry) -> Hashable:
    service = entry.service
    return (
        *(service.id, entry.address, service.port, service.create_index, service.modify_index),
        *(service.meta.get(META_OPENAPI), service.meta.get(META_VERSION)),
    )


def _place(entry: ServiceEntry) -> Place:
    return Place(entry.address, entry.service.port, entry.service.meta[META_OPENAPI])
