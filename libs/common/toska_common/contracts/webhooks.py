"""The events service's webhooks (`/api/v1/events/subscribe` and `…/subscriptions`)."""

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from toska_common.contracts import Contract, Document
from toska_common.events.event import EXTENSION
from toska_common.events.retrying import Retrying
from toska_common.units import Duration

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public part of every secret
_SECRET_BYTES = range(24, 65)
"""Of a key, by the Standard Webhooks specification."""


class Backoff(Document):
    """How often an event that was not taken is sent again, and when."""

    attempts: int = Field(default=8, ge=1, le=50, description="In all; after the last one it is a dead letter")
    first: Duration = Field(default=timedelta(seconds=1), gt=timedelta(0), le=timedelta(days=1))
    longest: Duration = Field(default=timedelta(minutes=5), gt=timedelta(0), le=timedelta(days=1))
    factor: float = Field(default=4.0, ge=1, le=100)

    @property
    def retrying(self) -> Retrying:
        """The same as a subscription has it."""
        return Retrying(self.attempts, self.first, self.longest, self.factor)


class WebhookDraft(Document):
    """Where events are to be sent."""

    topics: tuple[str, ...] = Field(min_length=1, max_length=64, description="Patterns: orders.# or mesh.*.registered")
    url: str = Field(max_length=2048, description="http or https; each event is POSTed there")
    group: str | None = Field(default=None, description="Share the work of this group; one of its own if left out")
    where: Mapping[str, str] = Field(
        default_factory=dict[str, str], max_length=16, description="Attributes that an event must have"
    )
    secret: SecretStr | None = Field(
        default=None, description="Signs what is sent: whsec_ and 24 to 64 bytes in base64; one is made if left out"
    )
    retrying: Backoff = Field(default_factory=Backoff)
    timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta(milliseconds=10), le=timedelta(minutes=1))
    rate: int | None = Field(default=None, ge=1, le=100_000, description="Most requests a minute; none if left out")
    handshake: bool = Field(
        default=False,
        description="Ask the receiver for its agreement first, by OPTIONS (CloudEvents' HTTP webhooks §4), and keep to "
        "the rate that it allows",
    )
    description: str = Field(default="", max_length=1024)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ValueError("is no URL") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ValueError("is not of the form https://host/path")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("has a user or a fragment; put a secret into the path or the query, or check signatures")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("has characters that must be escaped")
        return url

    @field_validator("where")
    @classmethod
    def _attributes(cls, where: Mapping[str, str]) -> Mapping[str, str]:
        for name in where:
            if not EXTENSION.fullmatch(name):
                raise ValueError("names of attributes are a-z and 0-9, 20 characters at most")
        return where

    @field_validator("secret")
    @classmethod
    def _key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            secret_bytes(secret.get_secret_value())
        return secret


class Webhook(Contract):
    """A subscription as it is shown; its secret is not."""

    id: str
    topics: tuple[str, ...]
    url: str
    group: str
    where: Mapping[str, str]
    attempts: int
    first_retry_seconds: float
    longest_retry_seconds: float
    timeout_seconds: float
    rate: int | None = Field(default=None, description="Most requests a minute: as asked for, or less by agreement")
    agreed: bool = Field(default=False, description="Whether the receiver was asked, and agreed")
    description: str
    created_at: datetime


class NewWebhook(Webhook):
    """One that was just made."""

    secret: str = Field(description="Shown this once: what signatures are checked with")


def secret_bytes(secret: str) -> bytes:
    """The key in a secret.

    Raises:
        ValueError: It is none; the message does not hold it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError("is not whsec_ and 24 to 64 bytes in base64")
    return key
