"""Who may do what on the Consul port, and the words of refusal.

Changes need a token: `join` for services, their checks, and events; `admin` for keys, sessions, prepared queries and
snapshots, for services named `toska-*`, and for what befalls every service of a node, such as checks of the node
itself. Reads are open where only this machine can connect; elsewhere `join` reads services and `admin` reads keys,
which may hold secrets. A token comes as `X-Consul-Token`, `Authorization: Bearer` or `?token=`.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.credentials import Access, bearer_token
from toska_common.security import SAFE_METHODS, ManagementPolicy

from toska_discovery.consul.request import Query, Refusal
from toska_discovery.consul.views import CONSUL

PERMISSION_DENIED = "Permission denied"
ACL_NOT_FOUND = "ACL not found"
"""Consul's words for a missing or insufficient token, and for one that it does not know."""

ADMIN_PATHS = ("/v1/kv/", "/v1/session/", "/v1/txn", "/v1/query", "/v1/snapshot")
"""Where `join` does not suffice: who ends a session takes its locks away."""


class ConsulPolicy:
    """The rules of the Consul port: a management listener's, with Consul's words and needs.

    Args:
        management: Those of a management listener.
        acl: Whether reads need a token wherever they come from.
    """

    def __init__(self, management: ManagementPolicy, *, acl: bool = False) -> None:
        self._credentials = management.credentials
        # Both are asked by every request, and reading an IP address takes as long as answering a lookup.
        self._open_reads = management.open_reads and not acl
        self._answers_to = lru_cache(maxsize=256)(management.answers_to)

    def check(self, method: str, path: str, query: Query, headers: Mapping[bytes, bytes]) -> Access | None:
        """Let a request pass, and say what its token allows.

        Raises:
            Refusal: A Host name that is not ours, or a token that does not suffice.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._answers_to(host):
            raise Refusal(
                403, f"{PERMISSION_DENIED}: unknown Host name; add it to TOSKA_ALLOWED_HOSTS if it is this registry's"
            )
        token = _token(query, headers)
        access = self._credentials.access_of(token) if token else None
        needed = self._needed(method, path)
        if needed is None:
            return access
        if token and access is None:
            raise Refusal(403, ACL_NOT_FOUND)
        if access is None or (needed is Access.ADMIN and access is not Access.ADMIN):
            raise Refusal(403, PERMISSION_DENIED)
        return access

    def _needed(self, method: str, path: str) -> Access | None:
        if method in SAFE_METHODS and self._open_reads:
            return None
        return Access.ADMIN if path.startswith(ADMIN_PATHS) else Access.JOIN


def require_admin(access: Access | None, what: str) -> None:
    """Keep `what` to the admin token.

    Raises:
        Refusal: `access` is less.
    """
    if access is not Access.ADMIN:
        raise Refusal(403, f"{PERMISSION_DENIED}: {what} needs the admin token")


def require_for_names(access: Access | None, names: Iterable[str]) -> None:
    """Keep the mesh's own services to the admin token.

    Raises:
        Refusal: One of `names` is theirs and `access` is less.
    """
    for name in names:
        if name.startswith(RESERVED_PREFIX) or name == CONSUL:
            require_admin(access, f"the service {name}")


def _token(query: Query, headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-consul-token")
    if given:
        return given.decode("latin-1")
    authorization = headers.get(b"authorization")
    bearer = bearer_token(authorization.decode("latin-1")) if authorization else None
    return bearer or query.first("token")
