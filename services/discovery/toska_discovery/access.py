"""Who may change what by discovery's own APIs, and where an instance may be."""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from toska_common.contracts.discovery import Registration
from toska_common.contracts.names import RESERVED_PREFIX
from toska_common.credentials import Access
from toska_common.errors import Forbidden, InvalidInput
from toska_common.targets import TargetRules

PREFIX = "/api/v1/services"

_CHANGES_BY_JOIN = re.compile(
    rf"POST {PREFIX}(/[^/]+/heartbeat)?|DELETE {PREFIX}/[^/]+|(PUT|PATCH) {PREFIX}/[^/]+/metadata"
)


def join_suffices(method: str, path: str) -> bool:
    """Whether a change needs no more than the join token: an app may register, renew, describe and deregister."""
    return _CHANGES_BY_JOIN.fullmatch(f"{method} {path}") is not None


def require_admin_for(access: Access | None, names: Iterable[str]) -> None:
    """Keep the mesh's own services to the admin token.

    Raises:
        Forbidden: One of `names` is theirs and `access` is less.
    """
    if access is Access.ADMIN:
        return
    ours = sorted(name for name in names if name.startswith(RESERVED_PREFIX))
    if ours:
        raise Forbidden(f"{', '.join(ours)} belongs to the mesh itself: the admin token is needed", needs="admin")


def check_target(registration: Registration, targets: TargetRules, *, field: str = "body.address") -> None:
    """Refuse what must never be connected to; a name is checked by whoever connects, once it is resolved.

    Raises:
        InvalidInput: Names `field` and the reason.
    """
    # The mesh's own services are where its management is.
    rules = TargetRules() if registration.service.startswith(RESERVED_PREFIX) else targets
    address = "127.0.0.1" if registration.address == "localhost" else registration.address
    try:
        ip = ip_address(address)
    except ValueError:
        return
    reason = "0.0.0.0 and :: are no addresses to connect to" if ip.is_unspecified else None
    reason = reason or rules.refusal(str(ip), registration.port)
    if reason is not None:
        raise InvalidInput(f"{field}: {reason}", problems=[{"field": field, "reason": reason}])
