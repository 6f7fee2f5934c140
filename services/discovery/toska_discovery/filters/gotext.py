"""Text as Go's `strconv` reads and quotes it: literals of an expression, and the values in refusals."""

import re

_QUOTES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([abfnrtv\\]))")
_INTEGER = re.compile(
    r"([+-]?)(?:0[xX]((?:_?[0-9a-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]((?:_?[0-7])+)|0((?:_?[0-7])+)|([1-9](?:_?[0-9])*|0))"
)
_BASES = (16, 2, 8, 8, 10)
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def quote(text: str) -> str:
    """`text` as Go's `%q` shows it."""
    return '"' + "".join(_quote_letter(letter) for letter in text) + '"'


def _quote_letter(letter: str) -> str:
    known = _QUOTES.get(letter)
    if known is not None:
        return known
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if letter.isprintable():
        return letter
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unquote(inner: str) -> str:
    """What a double-quoted literal stands for, given what is between its quotes.

    Raises:
        ValueError: An escape that there is not, or a line break.
    """
    parts: list[bytes] = []
    position = 0
    while position < len(inner):
        letter = inner[position]
        if letter == "\n":
            raise ValueError("invalid syntax")
        if letter != "\\":
            end = _plain_end(inner, position)
            parts.append(inner[position:end].encode())
            position = end
            continue
        found = _ESCAPE.match(inner, position)
        if found is None:
            raise ValueError("invalid syntax")
        parts.append(_unescape(found))
        position = found.end()
    return b"".join(parts).decode(errors="surrogateescape")


def _plain_end(text: str, start: int) -> int:
    ends = [end for end in (text.find("\\", start), text.find("\n", start)) if end >= 0]
    return min(ends, default=len(text))


def _unescape(found: re.Match[str]) -> bytes:
    byte, octal, short, long, single = found.groups()
    if single is not None:
        return bytes([_ESCAPES[single]])
    if byte is not None or octal is not None:
        code = int(byte, 16) if byte is not None else int(octal, 8)
        if code > 255:
            raise ValueError("invalid syntax")
        return bytes([code])
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise ValueError("invalid syntax")
    return chr(code).encode()


def parse_integer(text: str) -> int:
    """A signed 64-bit number in any of Go's notations (`strconv.ParseInt` with base 0).

    Raises:
        ValueError: In the words of `strconv`.
    """
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    sign, *groups = found.groups()
    digits, base = next((group, base) for group, base in zip(groups, _BASES, strict=True) if group is not None)
    digits = digits.replace("_", "").lstrip("0") or "0"
    value = int(digits, base) if len(digits) <= 64 else 2**64
    value = -value if sign == "-" else value
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def parse_boolean(text: str) -> bool:
    """A truth value in any of Go's words (`strconv.ParseBool`).

    Raises:
        ValueError: In the words of `strconv`.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
