"""`POST /api/v1/events/subscribe` and `/subscriptions`: events POSTed to where somebody wants them. All need admin."""

import contextlib
from typing import Any

from fastapi import APIRouter, Request, Response
from toska_common.contracts.webhooks import NewWebhook, Webhook, WebhookDraft
from toska_common.errors import Conflict, InvalidInput, MeshError, NotFound
from toska_common.events.errors import EventsUnavailable
from toska_common.events.topics import check_group, check_pattern
from toska_common.security import require_admin
from toska_common.targets import TargetRules

from toska_events.access import PREFIX
from toska_events.parts import Parts
from toska_events.webhooks.agreeing import Agreement
from toska_events.webhooks.book import GROUP_PREFIX, shown
from toska_events.webhooks.grounds import forbidden_ground
from toska_events.webhooks.sending import open_sender, require_allowed


def webhook_routes(parts: Parts) -> APIRouter:
    """The handlers."""
    router = APIRouter(prefix=PREFIX, tags=["webhooks"])
    unknown: dict[int | str, dict[str, Any]] = {404: {"description": "Nothing is subscribed under it"}}

    @router.post("/subscribe", status_code=201, responses={503: {"description": "What carries events is away"}})
    async def subscribe(request: Request, response: Response, draft: WebhookDraft) -> NewWebhook:
        """Send events from now on to a URL; the answer alone shows the secret that they are signed with."""
        require_admin(request.state.access)
        webhooks = parts.get_webhooks()
        _check(draft)
        rules = await forbidden_ground(webhooks.consul, parts.settings)
        require_allowed(draft.url, rules)
        agreement = await _agree(draft, parts, rules) if draft.handshake else None
        made = await webhooks.book.add(draft, agreement, parts.clock.now())
        try:
            # From here on the group gets its events, whoever delivers them.
            record = await webhooks.book.get(made.id)
            async with parts.get_transport().subscribe(record.subscription):
                pass
        except MeshError:
            await webhooks.book.delete(made.id)
            raise
        response.headers["location"] = f"{PREFIX}/subscriptions/{made.id}"
        return made

    @router.get("/subscriptions")
    async def list_subscriptions(request: Request) -> list[Webhook]:
        """All webhooks, the oldest first."""
        require_admin(request.state.access)
        return [shown(record) for record in await parts.get_webhooks().book.list_all()]

    @router.get("/subscriptions/{webhook_id}", responses=unknown)
    async def get_subscription(request: Request, webhook_id: str) -> Webhook:
        """One webhook."""
        require_admin(request.state.access)
        return shown(await parts.get_webhooks().book.get(webhook_id))

    @router.delete("/subscriptions/{webhook_id}", status_code=204, responses=unknown)
    async def unsubscribe(request: Request, webhook_id: str) -> None:
        """Send it nothing more, and forget what its own group has yet to be given."""
        require_admin(request.state.access)
        book = parts.get_webhooks().book
        group = (await book.get(webhook_id)).group
        await book.delete(webhook_id)
        if group.startswith(GROUP_PREFIX):
            with contextlib.suppress(Conflict, NotFound, EventsUnavailable):  # then by whoever delivers
                await parts.get_transport().administration.delete_group(group)

    return router


async def _agree(draft: WebhookDraft, parts: Parts, rules: TargetRules) -> Agreement:
    async with open_sender(parts.clock, rules) as sender:
        told = await sender.agree(draft.url, parts.settings.webhook_origin, draft.rate, draft.timeout.total_seconds())
    if isinstance(told, str):
        raise InvalidInput(f"the receiver does not agree: {told}", problems=[{"field": "body.url", "reason": told}])
    return told


def _check(draft: WebhookDraft) -> None:
    for pattern in draft.topics:
        check_pattern(pattern, field="body.topics")
    if draft.group is not None:
        check_group(draft.group, field="body.group")
        if draft.group.startswith(GROUP_PREFIX):
            reason = f"groups that begin with {GROUP_PREFIX} are webhooks' own"
            raise InvalidInput(reason, problems=[{"field": "body.group", "reason": reason}])
