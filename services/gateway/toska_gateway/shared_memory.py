"""Memory that a gateway's workers see in common, under a file descriptor that they are handed."""

import os
import tempfile


def open_shared_memory(size: int) -> int:
    """A descriptor of `size` zero bytes, of which pages exist once they are written; it has no name in any folder."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("toska-gateway")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
