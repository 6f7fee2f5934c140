"""Clients that come back to the endpoint they had: a cookie names it, in words that only the gateway can make.

The value is a keyed hash of cluster and endpoint (BLAKE2b, RFC 7693 §2.9). It tells nothing about addresses, cannot be
made up to steer requests, and holds in every worker, and in every gateway that has the same key.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from toska_gateway.worker.http1 import RequestHead
from toska_gateway.worker.keys import find_cookie

if TYPE_CHECKING:
    from toska_gateway.worker.endpoint import Endpoint


class Affinity:
    """The cookie of one cluster."""

    __slots__ = ("_attributes", "_by_tag", "_name", "_salt", "_secret", "_tags")

    def __init__(self, settings: dict[str, Any], cluster: str, secret: bytes) -> None:
        self._name: bytes = settings["cookie"].encode("ascii")
        self._secret = secret
        self._salt = cluster.encode() + b"\0"
        lasts = b"; Max-Age=%d" % int(settings["ttl"]) if settings["ttl"] else b""
        secure = b"; Secure" if settings["secure"] else b""
        self._attributes = b"; Path=/; HttpOnly; SameSite=Lax" + secure + lasts
        self._by_tag: dict[bytes, Endpoint] = {}
        self._tags: dict[Endpoint, bytes] = {}

    def know(self, endpoints: Sequence["Endpoint"]) -> None:
        """Take over the endpoints that there are; one that is unhealthy is not come back to."""
        tags = {endpoint: self._tags.get(endpoint) or self._tag(endpoint) for endpoint in endpoints}
        self._tags = tags
        self._by_tag = {tag: endpoint for endpoint, tag in tags.items() if endpoint.healthy}

    def _tag(self, endpoint: "Endpoint") -> bytes:
        return blake2b(self._salt + endpoint.key.encode(), digest_size=16, key=self._secret).hexdigest().encode()

    def find(self, head: RequestHead) -> "Endpoint | None":
        """The endpoint that the request's cookie names, if it is one of ours and well."""
        value = find_cookie(head, self._name)
        return None if value is None else self._by_tag.get(value)

    def cookie_for(self, endpoint: "Endpoint") -> tuple[bytes, ...]:
        """The field line that names `endpoint`; none of one that has left."""
        tag = self._tags.get(endpoint)
        return () if tag is None else (b"set-cookie: %b=%b%b\r\n" % (self._name, tag, self._attributes),)
