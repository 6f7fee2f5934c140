"""The event log: one SQLite file, written by one thread in group commits, read by another."""
