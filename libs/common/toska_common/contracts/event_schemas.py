"""Schemas of events' payloads (`/api/v1/events/schemas…`): what a topic's events carry, version by version."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from toska_common.contracts import Contract, Document
from toska_common.events.compatibility import Compatibility


class SchemaProposal(Document):
    """A version of a topic's schema that somebody is going to publish by."""

    version: int = Field(ge=1, le=1_000_000)
    payload: Mapping[str, Any] = Field(alias="schema", description="JSON Schema 2020-12, without references elsewhere")
    upcasts_from: tuple[int, ...] = Field(
        default=(), max_length=1000, description="Older versions that readers of this one bring up to date by code"
    )
    compatibility: Compatibility | None = Field(
        default=None, description="What later versions must be; taken with a topic's first version alone"
    )


class SchemaVersion(Contract):
    """A version that was taken."""

    version: int
    payload: Mapping[str, Any] = Field(alias="schema")
    upcasts_from: tuple[int, ...] = ()
    service: str = Field(default="", description="Who proposed it, as it calls itself")
    registered_at: datetime


class TopicSchema(Contract):
    """All versions of one topic's schema."""

    topic: str
    compatibility: Compatibility
    versions: tuple[SchemaVersion, ...]

    @property
    def newest(self) -> SchemaVersion:
        """The version with the highest number."""
        return max(self.versions, key=lambda item: item.version)


class CompatibilityChange(Document):
    """What a topic asks of its next version."""

    compatibility: Compatibility
