"""Requests over events: a question with a topic to answer to, and answers told apart by what they belong to.

Each process has one inbox, an ephemeral topic of its own, opened with the first request. A question carries `replyto`
and `correlationid`; the answer carries the latter and, as `replytype`, the topic whose payload it is, since its own
topic is the inbox. A question that was rejected is answered with `replyerror`, so that the asker need not wait for its
deadline.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio

from toska_common.errors import InvalidInput, UpstreamError, UpstreamTimeout
from toska_common.events.event import Event
from toska_common.events.handlers import Answer, Incoming
from toska_common.events.payload import EventPayload
from toska_common.events.topics import check_topic

REPLY_TO, CORRELATION, REPLY_TYPE, REPLY_ERROR = "replyto", "correlationid", "replytype", "replyerror"
INBOXES = "reply."
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
"""What a reason may hold, and an attribute may not."""


class RequestRejected(UpstreamError):
    """Whoever was asked says that it cannot answer."""

    code, title = "request-rejected", "Request rejected"


class Inbox:
    """Where the answers to this process's requests come."""

    def __init__(self, service: str) -> None:
        self.topic = check_topic(f"{INBOXES}{service}.{secrets.token_hex(8)}")
        self._waiting: dict[str, tuple[anyio.Event, list[Incoming[object]]]] = {}

    async def take(self, incoming: Incoming[object]) -> None:
        """An answer came; those that nobody waits for any more are dropped."""
        waiting = self._waiting.get(incoming.event.attributes.get(CORRELATION, ""))
        if waiting is not None:
            waiting[1].append(incoming)
            waiting[0].set()

    async def ask(self, correlation: str, send: Callable[[], Awaitable[object]], within: timedelta) -> Incoming[object]:
        """Send a question and wait for its answer.

        Raises:
            RequestRejected: Whoever was asked cannot answer.
            UpstreamTimeout: Nobody answered in time.
        """
        arrived, answers = self._waiting[correlation] = (anyio.Event(), [])
        try:
            with anyio.fail_after(within.total_seconds()):
                await send()
                await arrived.wait()
        except TimeoutError as error:
            raise UpstreamTimeout(f"nobody answered within {within.total_seconds():g} s") from error
        finally:
            del self._waiting[correlation]
        (answer, *_) = answers
        reason = answer.event.attributes.get(REPLY_ERROR)
        if reason is not None:
            raise RequestRejected(f"the request was rejected: {reason}")
        return answer


@dataclass(frozen=True, slots=True)
class Reply:
    """What is published to answer a question."""

    topic: str
    data: Any
    attributes: Mapping[str, str]


def build_reply(question: Event, answer: Answer, error: str) -> Reply | None:
    """What goes back to whoever asked: the answer, or the `error` that there is none; `None` if nobody waits for one.

    Raises:
        InvalidInput: The answer is no payload with a topic, by which the asker would read it; or the question wants it
            in no inbox: whoever asks must not make others publish to any topic they like.
    """
    inbox = inbox_of(question)
    if inbox is None or (answer is None and not error):
        return None
    attributes = {CORRELATION: question.attributes[CORRELATION]}
    if answer is None:
        return Reply(inbox, None, {**attributes, REPLY_ERROR: _CONTROLS.sub(" ", error)})
    topic = _check_answer(answer).event_topic
    return Reply(inbox, answer.model_dump(mode="json"), {**attributes, REPLY_TYPE: topic})


def _check_answer(answer: object) -> EventPayload:
    if not isinstance(answer, EventPayload) or not answer.event_topic:
        reason = f"is an EventPayload with a topic, and no {type(answer).__name__}"
        raise InvalidInput(f"what a handler answers {reason}", problems=[{"field": "", "reason": reason}])
    return answer


def inbox_of(question: Event) -> str | None:
    """Where an answer is to go, if one is wanted.

    Raises:
        InvalidInput: To no inbox.
    """
    topic = question.attributes.get(REPLY_TO)
    if topic is None:
        return None
    if not topic.startswith(INBOXES) or not question.attributes.get(CORRELATION):
        reason = f"names an inbox ({INBOXES}…), together with {CORRELATION}"
        raise InvalidInput(f"{REPLY_TO} {reason}", problems=[{"field": REPLY_TO, "reason": reason}])
    return check_topic(topic, field=REPLY_TO)
