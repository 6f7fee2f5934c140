"""Publishers tell the schema registry what they are going to publish, before the first event of their lives.

A refusal stops them: better no event than one that its readers cannot read. A registry that does not answer does not
stop them, since it would take the mesh's events down with it; they go on, and ask again a little later.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import anyio
import httpx
import structlog

from toska_common.clock import Clock, SystemClock
from toska_common.errors import UpstreamError
from toska_common.events.errors import SchemaRefused
from toska_common.events.payload import EventPayload

log = structlog.get_logger(__name__)

ANSWERS_WITHIN_S = 2.0
AGAIN_AFTER_S = 30.0

Post = Callable[[str, Mapping[str, Any]], Awaitable[httpx.Response]]
"""Sends JSON to a path of the events service."""


class Proposing:
    """For `EventBus(before_publishing=…)`: proposes each payload type once.

    Args:
        post: Raises `httpx.HTTPError` or `UpstreamError` when the events service is away.
    """

    def __init__(self, service: str, post: Post, clock: Clock | None = None) -> None:
        self._service = service
        self._post = post
        self._clock = clock or SystemClock()
        self._taken: set[str] = set()
        self._again_at = 0.0

    async def __call__(self, types: Sequence[type[EventPayload]]) -> bool:
        """Propose those that were not taken yet; returns whether all are.

        Raises:
            SchemaRefused: One is not compatible with what its topic's readers know.
        """
        if self._clock.monotonic() < self._again_at:
            return False
        for payload_type in types:
            if payload_type.event_topic not in self._taken and not await self._propose(payload_type):
                self._again_at = self._clock.monotonic() + AGAIN_AFTER_S
                return False
        return True

    async def _propose(self, payload_type: type[EventPayload]) -> bool:
        topic = payload_type.event_topic
        body = {
            "version": payload_type.event_version,
            "schema": payload_type.model_json_schema(),
            "upcasts_from": sorted(payload_type.event_upcasters),
        }
        try:
            with anyio.fail_after(ANSWERS_WITHIN_S):
                answer = await self._post(f"/api/v1/events/schemas/{topic}/versions?service={self._service}", body)
        except (httpx.HTTPError, UpstreamError, TimeoutError) as error:
            log.warning("schema_not_proposed", topic=topic, reason=str(error) or type(error).__name__)
            return False
        if answer.status_code == 409:
            problem = _read_problem(answer)
            raise SchemaRefused(
                str(problem.get("detail", "refused")), topic=topic, problems=problem.get("problems", [])
            )
        if answer.status_code >= 400:
            log.warning("schema_not_proposed", topic=topic, status=answer.status_code)
            return False
        self._taken.add(topic)
        return True


def _read_problem(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found: Any = answer.json()
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
