"""Entity tags of metadata: the version, and a few letters of the content, so that no other state has the same tag."""

import hashlib
import json
import re

from toska_common.contracts.discovery import Metadata
from toska_common.errors import PreconditionFailed

_TAG = re.compile(r'"(\d{1,9})-[0-9a-f]{8}"')


def etag_of(metadata: Metadata) -> str:
    """The entity tag, quotes included."""
    content = json.dumps(dict(metadata.metadata), sort_keys=True).encode()
    return f'"{metadata.version}-{hashlib.sha256(content).hexdigest()[:8]}"'


def expected_versions(if_match: str | None, instance_id: str) -> frozenset[int] | None:
    """The versions that `If-Match` allows (RFC 9110 §13.1.1); any (`None`) without it, or for `*`.

    Raises:
        PreconditionFailed: It names nothing that could match, such as a weak tag.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = [match for match in map(_TAG.fullmatch, (part.strip() for part in if_match.split(","))) if match]
    if not found:
        raise PreconditionFailed("If-Match names no version of this metadata", id=instance_id)
    return frozenset(int(match[1]) for match in found)
