"""What can go wrong with events, and what a handler says of one.

    MeshError
    ├── UpstreamUnavailable
    │   └── EventsUnavailable  503  upstream  the broker is away, or did not confirm in time
    ├── InvalidInput
    │   └── InvalidPayload     422  caller    the data are not what the topic carries; `problems` names each field
    ├── CallerError
    │   ├── EventTooLarge      413  caller    over the limit of this mesh
    │   └── EventRefused       409  caller    the topic takes no such event; nothing of the batch was published
    │       └── SchemaRefused  409  caller    nor any other of this publisher, until its schema is taken
    ├── NotFound
    │   └── UnknownTopic, UnknownGroup, UnknownDeadLetter
    └── LogFull                507  mesh      the embedded log has no room left

`Retry` and `Reject` are raised by handlers and reach nobody else.
"""

from datetime import timedelta

from toska_common.errors import CallerError, InvalidInput, MeshError, NotFound, UpstreamUnavailable


class EventsUnavailable(UpstreamUnavailable):
    """The broker is away, or did not confirm in time; events of the call may or may not have been published."""

    code, title = "events-unavailable", "Events unavailable"


class InvalidPayload(InvalidInput):
    """The data are not what the topic carries."""

    code, title = "invalid-payload", "Invalid payload"


class EventTooLarge(CallerError):
    """An event over the limit of this mesh; nothing of the call was published."""

    status, code, title = 413, "event-too-large", "Event too large"


class EventRefused(CallerError):
    """The topic takes no such event; nothing of the call was published."""

    status, code, title = 409, "publishing-refused", "Publishing refused"


class SchemaRefused(EventRefused):
    """What this service would publish is not compatible with what a topic's readers know; it publishes nothing."""

    code, title = "schema-refused", "Schema refused"


class UnknownTopic(NotFound):
    """Nobody created this topic or published to it."""

    code, title = "unknown-topic", "Unknown topic"


class UnknownGroup(NotFound):
    """No group has this name."""

    code, title = "unknown-group", "Unknown group"


class UnknownDeadLetter(NotFound):
    """No dead letter has this id; it was driven again or purged."""

    code, title = "unknown-dead-letter", "Unknown dead letter"


class LogFull(MeshError):
    """The embedded log has no room left, on the disk or within its bounds; nothing of the call was published."""

    status, code, title = 507, "event-log-full", "Event log full"


class Retry(Exception):
    """Raised by a handler: hand me this event again.

    Args:
        reason: For whoever looks at the event.
        after: When; the subscription's own backoff if left out.
    """

    def __init__(self, reason: str = "the handler asked for it", *, after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class Reject(Exception):
    """Raised by a handler: this event cannot be handled however often it comes; keep it with the dead letters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
