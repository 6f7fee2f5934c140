"""What the registry makes of registrations, and the bounds of what they say."""

import re
from dataclasses import dataclass

from toska_common.targets import TargetRules

from toska_discovery.check import CheckKind
from toska_discovery.consul.request import Refusal

NAME_MAX, ID_MAX, TAG_MAX, NOTES_MAX = 255, 255, 255, 4096
TAGS_MAX, META_MAX = 64, 64
META_KEY_MAX, META_VALUE_MAX = 128, 512

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """What an operator lets be registered.

    Attributes:
        removal_after_s: For checks that do not say after how long of being critical their service goes.
        targets: Addresses that may not be registered.
        kinds: Of checks that this registry runs.
    """

    removal_after_s: float
    targets: TargetRules
    kinds: frozenset[CheckKind] = frozenset({CheckKind.TTL})


def bound(what: str, text: str, limit: int) -> None:
    """Keep `text` within `limit` characters, none of them a control character.

    Raises:
        Refusal: It is not.
    """
    if len(text) > limit or CONTROL.search(text):
        raise Refusal(400, f"Invalid {what}: at most {limit} characters and no control characters")
