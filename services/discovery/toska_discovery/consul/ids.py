"""Ids of sessions and prepared queries: UUIDs, and what Consul says of what is none."""

from toska_discovery.consul.request import Refusal

_LENGTH, _HYPHENS = 36, 4
_DIGITS = frozenset("0123456789abcdefABCDEF")


def refuse_non_uuid(text: str, context: str) -> None:
    """Let an id pass that may be one of ours.

    Raises:
        Refusal: With what is wrong with it, after `context`.
    """
    problem = uuid_problem(text)
    if problem is not None:
        raise Refusal(500, f"{context}: index error: {problem}")


def uuid_problem(text: str) -> str | None:
    """What is wrong with an id, in Consul's words; `None` if nothing is."""
    if len(text.encode()) != _LENGTH:
        return f"UUID must be {_LENGTH} characters"
    hyphens = text.count("-")
    if hyphens > _HYPHENS:
        return f'UUID should have maximum of {_HYPHENS} "-"; got {hyphens}'
    digits = text.replace("-", "")
    if len(digits) % 2:
        return "Input (without hyphens) must be even length"
    strange = next((letter for letter in digits if letter not in _DIGITS), None)
    if strange is not None:
        return f"Invalid UUID: encoding/hex: invalid byte: U+{ord(strange):04X} '{strange}'"
    return None
