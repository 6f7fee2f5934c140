"""What RabbitMQ says is wrong, in words that name what to do; and its client's many exceptions, as few.

aiormq ends whatever waits on a connection that goes with `CancelledError`. Somebody who was not cancelled must not see
that: `translated` tells the two apart.
"""

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from typing import TypeVar

import aiormq

from toska_common.events.errors import EventsUnavailable

T = TypeVar("T")


class TopologyConflict(EventsUnavailable):
    """A queue or exchange is there, and is not what this version declares."""

    code, title = "events-topology-conflict", "Events topology conflict"


class CredentialsRefused(EventsUnavailable):
    """RabbitMQ does not let this user in, or not to do this."""

    code, title = "events-credentials-refused", "Events credentials refused"


class TlsFailed(EventsUnavailable):
    """No node could be reached by TLS: one of the two does not believe the other, or a file of ours is of no use."""

    code, title = "events-tls-failed", "Events TLS failed"


class Gone(Exception):
    """The connection or the channel went away; what was asked on it may or may not have been done."""


class NoQueue(Gone):
    """There is no such queue, or its node is just starting; the channel is closed."""


class Locked(Gone):
    """Somebody else has it; the channel is closed."""


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise what RabbitMQ says of `what` as one of ours.

    Raises:
        TopologyConflict: It is there with other settings.
        CredentialsRefused: This user may not.
        NoQueue, Locked, Gone: As they say.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Gone(f"the connection went away during {what}") from error
    except aiormq.ChannelPreconditionFailed as error:
        raise TopologyConflict(
            f"RabbitMQ refused {what}: {_said(error)}. Somebody else or an older version declared it: let its "
            "consumers empty it and delete it (`rabbitmqctl delete_queue NAME`), or use another `namespace` in the URL"
        ) from error
    except (aiormq.ChannelAccessRefused, aiormq.exceptions.ConnectionNotAllowed) as error:
        raise CredentialsRefused(f"RabbitMQ does not allow {what}: {_said(error)}") from error
    except aiormq.ChannelNotFoundEntity as error:
        raise NoQueue(_said(error)) from error
    except aiormq.ChannelLockedResource as error:
        raise Locked(_said(error)) from error
    except (aiormq.AMQPError, ConnectionError, RuntimeError, OSError) as error:
        raise Gone(f"{what}: {_said(error)}") from error


async def asked(what: str, answer: Awaitable[T]) -> T:
    """Await an answer of RabbitMQ's under `translated`."""
    with translated(what):
        return await answer


def _said(error: BaseException) -> str:
    text = " ".join(str(part) for part in error.args if part) or type(error).__name__
    return text[:400]
