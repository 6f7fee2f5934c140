"""What tells one source of keys from another: the parent and its workers make the same name of the same settings."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

_MEMBERS: Final = ("jwks_url", "jwks_file", "jwks", "jwks_ca", "jwks_refresh", "jwks_allow_http")


def source_name(jwt: Mapping[str, Any]) -> str:
    """The name of where a policy's keys come from; `jwt` is the policy as plain data.

    Algorithms are part of it, since they decide which keys of a set are usable.
    """
    told = {name: jwt[name] for name in _MEMBERS} | {"algorithms": sorted(jwt["algorithms"])}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
