"""What the reader of heads remembers of a message once it is over."""

import pytest
from toska_gateway.worker.http1.fields import REQUEST_SPECIAL, RESPONSE_SPECIAL, FieldMemo


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer secret",
        b"Cookie: session=secret",
        b"X-Consul-Token: secret",
        b"Set-Cookie: session=secret; HttpOnly",
        b"X-API-Key: secret",
    ],
)
def test_credentials_are_understood_and_not_remembered(line: bytes) -> None:
    for special in (REQUEST_SPECIAL, RESPONSE_SPECIAL):
        memo = FieldMemo(special)
        assert memo.learn(line) is not None
        assert memo.get(line) is None


def test_what_is_said_again_and_again_is_remembered() -> None:
    memo = FieldMemo(REQUEST_SPECIAL)
    line = b"Accept:  text/html "
    learnt = memo.learn(line)
    assert learnt == (None, b"Accept: text/html\r\n", b"text/html")
    assert memo.get(line) == learnt  # (compiled, a tuple is made anew each time that it is handed on)
