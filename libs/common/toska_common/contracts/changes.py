"""Several changes of routing at once, as they are asked for: all of them are made, or none."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from toska_common.contracts import Document
from toska_common.contracts.names import ResourceName
from toska_common.contracts.revisions import Kind

MAX_CHANGES = 10_000


class RequestedChange(Document):
    """One of them."""

    action: Literal["put", "patch", "delete"]
    kind: Kind
    name: ResourceName
    body: Any = Field(
        default=None, description="put: the resource, as PUT takes it; patch: a JSON Merge Patch of it (RFC 7396)"
    )
    if_match: str | None = Field(
        default=None, description="Make the change only if this is still the resource's version, or its ETag; * is any"
    )
    if_none_match: Literal["*"] | None = Field(default=None, description="Make the resource only if it is not there")

    @model_validator(mode="after")
    def _body_for_what_takes_one(self) -> Self:
        if self.action == "delete" and self.body is not None:
            raise ValueError("a delete has no body")
        if self.action != "delete" and self.body is None:
            raise ValueError(f"a {self.action} needs a body")
        return self


class RequestedChanges(Document):
    """The body of `POST /api/v1/changes`."""

    changes: tuple[RequestedChange, ...] = Field(
        min_length=1, max_length=MAX_CHANGES, description="Each resource at most once; their order does not matter"
    )
