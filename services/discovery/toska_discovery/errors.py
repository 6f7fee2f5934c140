"""What discovery refuses, beyond the errors that the whole mesh shares."""

from toska_common.errors import CallerError, MeshError, NotFound


class UnknownInstance(NotFound):
    """No instance is listed under this id: it was never registered, or its lease lapsed; register again."""

    code, title = "unknown-instance", "Unknown instance"


class UnknownCheck(NotFound):
    """No check is known under this id, so there is nothing to renew; register again."""

    code, title = "unknown-check", "Unknown check"


class SessionRefused(CallerError):
    """A session that cannot be, or that there is not; the detail is in Consul's words."""

    code, title = "session-refused", "No such session"


class EventRefused(CallerError):
    """An event that cannot be fired; the detail is in Consul's words."""

    code, title = "event-refused", "Event refused"


class QueryRefused(CallerError):
    """A prepared query that cannot be, or that there is not; the detail is in Consul's words."""

    code, title = "query-refused", "Query refused"


class SnapshotDamaged(CallerError):
    """An archive that is not whole, or not of this registry; nothing was restored."""

    code, title = "snapshot-damaged", "Snapshot damaged"


class StoreUnavailable(MeshError):
    """The state file cannot be written, so nothing can be promised; reads and renewals go on."""

    status, code, title = 503, "store-unavailable", "State cannot be written"


class RegistryFull(MeshError):
    """No more instances are taken than the operator allows; those that are there can still be changed."""

    status, code, title = 503, "registry-full", "Registry is full"
