"""What callers ask for, as proposals: decided on what holds in the moment of the change."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toska_common.contracts import Document
from toska_common.contracts.revisions import Kind
from toska_common.contracts.routing import RoutingDocument
from toska_common.errors import NotFound, PreconditionFailed
from toska_common.merge_patch import merge_patch
from toska_common.routing.document import load_resource
from toska_common.routing.problems import InvalidDocument, Problem
from toska_common.routing.written import written, written_version

from toska_router.documents import KINDS, Change, changes_between
from toska_router.sources import Sources


@dataclass(frozen=True, slots=True)
class Precondition:
    """What a caller takes the resource for (RFC 9110 §13.1): one of these versions; or, if `absent`, not there."""

    versions: frozenset[str] | None = None
    absent: bool = False

    def check(self, resource: Document | None) -> None:
        """Let the caller pass if the resource is what it is taken for.

        Raises:
            PreconditionFailed: It is not; `version` says what it is.
        """
        version = "" if resource is None else written_version(resource)
        if self.absent and resource is not None:
            raise PreconditionFailed("it is there already", version=version)
        if self.versions is None or (resource is not None and self.versions & {version, "*"}):
            return
        raise PreconditionFailed("it was changed since, or is not there", version=version)


ANY = Precondition()


@dataclass(frozen=True, slots=True)
class Put:
    """Make a resource, or replace it."""

    kind: Kind
    name: str
    resource: Document
    precondition: Precondition = ANY

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises `OwnedElsewhere` and `PreconditionFailed`."""
        self.precondition.check(sources.find(self.kind, self.name))
        return [Change(self.kind, self.name, self.resource)]


@dataclass(slots=True)
class Patch:
    """Change a part of a resource, as it is in the moment of the change (RFC 7396).

    What came out last is remembered: who asks beforehand, on what is known, leaves less to do in the moment itself.
    """

    kind: Kind
    name: str
    patch: Mapping[str, Any]
    precondition: Precondition = ANY
    _last: tuple[Document, Document] | None = None

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises `InvalidDocument` for what comes out, `NotFound`, `OwnedElsewhere` and `PreconditionFailed`."""
        found = sources.find(self.kind, self.name)
        if found is None:
            raise NotFound(f"there is no {self.kind} {self.name} to patch")
        self.precondition.check(found)
        if self._last is None or self._last[0] is not found:
            self._last = found, self._patched(found)
        return [Change(self.kind, self.name, self._last[1])]

    def _patched(self, found: Document) -> Document:
        source = f"the {self.kind} {self.name}, patched"
        as_written = written(found)
        patched = merge_patch(as_written, self.patch)
        if patched.get("name") != as_written.get("name"):
            raise InvalidDocument([Problem("name", None, "a patch gives no other name")], source=source)
        return load_resource(KINDS[self.kind], json.dumps(patched), source=source)


@dataclass(frozen=True, slots=True)
class Delete:
    """Take a resource away."""

    kind: Kind
    name: str
    precondition: Precondition = ANY

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises `NotFound`, `OwnedElsewhere` and `PreconditionFailed`."""
        found = sources.find(self.kind, self.name)
        if found is None:
            raise NotFound(f"there is no {self.kind} {self.name}")
        self.precondition.check(found)
        return [Change(self.kind, self.name, None)]


@dataclass(frozen=True, slots=True)
class Restore:
    """Make one resource what it was, which may be nothing."""

    kind: Kind
    name: str
    resource: Document | None
    precondition: Precondition = ANY

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Raises `OwnedElsewhere` and `PreconditionFailed`."""
        found = sources.find(self.kind, self.name)
        self.precondition.check(found)
        return [] if found is None and self.resource is None else [Change(self.kind, self.name, self.resource)]


@dataclass(frozen=True, slots=True)
class RestoreAll:
    """Make everything of the API what it was."""

    state: RoutingDocument

    def __call__(self, sources: Sources) -> Sequence[Change]:
        """Changes whatever is different, and nothing else."""
        return changes_between(sources.own, self.state)
