"""What stands in braces in header rules for something of the request: `{client_ip}`."""

import re
from collections.abc import Iterator
from typing import Final

PLACEHOLDERS: Final = ("client_ip", "host", "method", "path", "request_id", "route", "scheme")
_WRITTEN: Final = re.compile(r"\{([a-z][a-z_]*)\}")


def split_placeholders(text: str) -> Iterator[tuple[str, str]]:
    """The pieces of a text: each a literal, and the name in braces that follows it, empty at the end.

    Braces around anything but a plain word, as in JSON, are letters like all others.
    """
    at = 0
    for match in _WRITTEN.finditer(text):
        yield text[at : match.start()], match[1]
        at = match.end()
    yield text[at:], ""
