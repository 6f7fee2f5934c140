"""Words that must not leave the house: masked in the bodies of responses, wherever these are cut on their way.

policies:
  filters: [{use: "shop.redaction:Redact", settings: {words: [project-x, acme-internal]}}]
"""

import re

from pydantic import BaseModel, Field
from toska_common.filters import BodyFilter, Filter, Request, Response


class RedactSettings(BaseModel):
    """What is masked."""

    words: list[str] = Field(min_length=1, description="As they stand in the body; not patterns")
    mask: str = "***"
    content_types: tuple[str, ...] = ("text/", "application/json")


class Redact(Filter):
    """Masks words in responses of some types."""

    settings: RedactSettings

    def __init__(self, settings: RedactSettings) -> None:
        super().__init__(settings)
        words = sorted((word.encode() for word in settings.words), key=len, reverse=True)  # the longest match first
        self._words = re.compile(b"|".join(map(re.escape, words)))
        self._longest = len(words[0])
        self._mask = settings.mask.encode()

    def on_request(self, request: Request) -> None:
        # A compressed body, or one in parts, would get past.
        request.headers["accept-encoding"] = "identity"
        request.headers.pop("range", None)

    def on_response(self, response: Response) -> None:
        if response.headers.get("content-type", "").startswith(self.settings.content_types):
            response.filter_body(Redaction(self._words, self._longest, self._mask))


class Redaction(BodyFilter):
    """One body: keeps back as much as may be the beginning of a word."""

    def __init__(self, words: re.Pattern[bytes], longest: int, mask: bytes) -> None:
        self._words = words
        self._overlap = longest - 1
        self._mask = mask
        self._kept = b""

    def feed(self, chunk: bytes) -> bytes:
        data = self._kept + chunk
        certain = max(0, len(data) - self._overlap)  # what begins before here is here in full
        passed: list[bytes] = []
        at = 0
        for match in self._words.finditer(data):
            if match.start() >= certain:
                break
            passed += data[at : match.start()], self._mask
            at = match.end()
        certain = max(at, certain)
        self._kept = data[certain:]
        return b"".join((*passed, data[at:certain]))

    def finish(self) -> bytes:
        return self._words.sub(self._mask, self._kept)
