"""The `toska` command: one command runs a whole mesh."""

import time

STARTED_AT = time.monotonic()
"""When this process began to import us: what is imported from here on is part of the start that users wait for."""
