"""References inside one document: JSON pointers (RFC 6901), and the `$id` and `$anchor` of JSON Schema."""

from functools import cached_property
from typing import Any, Final, cast
from urllib.parse import quote, unquote

_ABSENT: Final = object()


def escape_token(token: str) -> str:
    """One token of a JSON pointer."""
    return token.replace("~", "~0").replace("/", "~1")


def escape(token: str) -> str:
    """One token of a JSON pointer in a URI fragment."""
    return quote(escape_token(token), safe="~!$&'()*+,;=:@/?{}")


class References:
    """What the references of a document lead to. Pointers are written without the `#`."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def pointer(self, reference: str, base: str) -> str | None:
        """The pointer that a reference stands for; `None` if it leads out of the document.

        Args:
            reference: As it is written.
            base: Pointer to the schema resource it stands in, which `#` is relative to; empty for the document.
        """
        resource, mark, fragment = reference.partition("#")
        if resource:
            found = self.resource(resource)
            if found is None:
                return None
            base = found
        if not fragment or fragment.startswith("/"):
            return base + unquote(fragment) if mark or resource else None
        return self._identifiers.get(f"#{fragment}")

    def resource(self, identifier: str) -> str | None:
        """Pointer to the schema with this `$id`."""
        return self._identifiers.get(identifier.rstrip("#"))

    @staticmethod
    def tokens(pointer: str) -> list[str]:
        """A pointer's tokens, unescaped; a leading `#` is allowed."""
        _, slash, path = pointer.partition("/")
        return [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")] if slash else []

    def target(self, pointer: str) -> Any:
        """What a pointer leads to; `None` if nothing is there."""
        node: Any = self._root
        for token in self.tokens(pointer):
            if isinstance(node, dict):
                node = cast("dict[str, Any]", node).get(token, _ABSENT)
            elif isinstance(node, list) and token.isdecimal() and int(token) < len(cast("list[Any]", node)):
                node = cast("list[Any]", node)[int(token)]
            else:
                return None
        return None if node is _ABSENT else node

    @cached_property
    def _identifiers(self) -> dict[str, str]:
        """Pointers by `$id`, and by `#anchor`; found when first needed, since hardly a document has any."""
        found: dict[str, str] = {}
        stack: list[tuple[str, Any]] = [("", self._root)]
        while stack:
            pointer, node = stack.pop()
            if isinstance(node, dict):
                mapping = cast("dict[str, Any]", node)
                if isinstance(mapping.get("$id"), str):
                    found.setdefault(str(mapping["$id"]).rstrip("#"), pointer)
                for key in ("$anchor", "$dynamicAnchor"):
                    if isinstance(mapping.get(key), str):
                        found.setdefault(f"#{mapping[key]}", pointer)
                stack += [(f"{pointer}/{escape_token(key)}", value) for key, value in mapping.items()]
            elif isinstance(node, list):
                stack += [(f"{pointer}/{at}", value) for at, value in enumerate(cast("list[Any]", node))]
        return found
