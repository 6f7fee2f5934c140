"""Why a token is not believed.

TokenRefused          the token is wrong, and will stay so
└── UnknownKey        it may be right: it names a key that is not in the set that we have
"""


class TokenRefused(Exception):
    """The token is not believed.

    The reason is for whoever sent it: a constant sentence without quotes or backslashes, and with nothing of the token
    in it.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class UnknownKey(TokenRefused):
    """No key of the set can have signed it; a newer set may have one. `kid` is what the token calls its key."""

    def __init__(self, kid: str | None) -> None:
        self.kid = kid
        super().__init__("the token is not signed with a key of its issuer")
