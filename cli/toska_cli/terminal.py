"""What may be written to somebody's terminal of what others have said."""


def plain(text: str) -> str:
    """A text without what a terminal would take for a command; whoever reaches a router can choose what it says."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
