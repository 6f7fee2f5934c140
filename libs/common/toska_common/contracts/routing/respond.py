"""A response that the gateway gives by itself."""

from pydantic import Field

from toska_common.contracts import Document


class Respond(Document):
    """Answer directly."""

    status: int = Field(default=200, ge=200, le=599)
    body: str = Field(default="", max_length=65536)
    content_type: str = Field(default="text/plain; charset=utf-8", pattern=r"^[\x20-\x7e]+$")
