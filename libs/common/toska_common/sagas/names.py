"""What sagas, steps and their ids may be called: they go to URLs, metrics, headers and tables."""

import re

from toska_common.errors import ConfigurationError, InvalidInput

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,127})")


def check_name(what: str, name: str) -> str:
    """Let a name pass.

    Raises:
        ConfigurationError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{what} {name!r}: write up to 64 of a-z, 0-9 and dashes, as in place-order")
    return name


def check_id(saga_id: str) -> str:
    """Let a saga's id pass.

    Raises:
        InvalidInput: It is none.
    """
    if not _ID.fullmatch(saga_id):
        reason = "write up to 128 letters, digits and . _ : - and begin with a letter or a digit"
        raise InvalidInput(f"a saga's id: {reason}", problems=[{"field": "id", "reason": reason}])
    return saga_id
