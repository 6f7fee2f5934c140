"""Opening a transport by the scheme of a URL; each is imported only where it is used.

- `embedded://`: the event log of the mesh on this machine, found by its home.
- `amqp://user:password@host:5672/vhost`, `amqps://…`: RabbitMQ; several nodes are separated by commas.
- `redis://host:6379`: Redis pub/sub, for what may be lost.
"""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from toska_common.errors import ConfigurationError
from toska_common.events.transport import Transport


def open_transport(
    url: str, *, home: Path | None, token: str = "", service: str = "toska"
) -> AbstractAsyncContextManager[Transport]:
    """A connection to what carries events, open inside the block.

    Args:
        url: As `TOSKA_EVENTS_URL` has it.
        home: The mesh's state folder, where `embedded://` finds its log; no other scheme needs one.
        token: The mesh's join or admin token, for the embedded log.
        service: Who this is, for logs and for the broker's list of connections.

    Raises:
        ConfigurationError: There is no such transport.
        EventsUnavailable: On entering: it is away. Once it was there, it comes back by itself.
    """
    scheme = url.partition("://")[0]
    if scheme == "embedded" and home is not None:
        from toska_common.events.embedded.transport import open_embedded

        return open_embedded(home, token=token, service=service)
    if scheme in ("amqp", "amqps"):
        from toska_common.events.amqp.transport import open_amqp

        return open_amqp(url, service=service)
    if scheme in ("redis", "rediss"):
        from toska_common.events.redis.transport import open_redis

        return open_redis(url)
    raise ConfigurationError(f"TOSKA_EVENTS_URL: nothing here carries events over {scheme}://")
