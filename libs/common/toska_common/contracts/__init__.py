"""The wire models of the mesh, one module for each service that owns them.

A `Contract` is frozen and ignores fields it does not know, so an old reader survives a newer writer. What people write
by hand is a `Document`: there an unknown key is an error, because it is most likely a typo.
"""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """A message between programs."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Document(BaseModel):
    """Something a person writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
