"""Redis pub/sub, for events that may be lost."""
