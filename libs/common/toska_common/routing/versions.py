"""Versions that any two routers of the same inputs agree on: hashes of the canonical content."""

import hashlib
import json
from typing import Any


def content_version(content: Any) -> str:
    """A version for JSON-able `content`: 16 hex digits of SHA-256 over its canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
