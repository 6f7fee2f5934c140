"""Toska Mesh events: what happened, kept until everybody who wants it has it.

With `TOSKA_EVENTS_URL=embedded://` this service owns the event log of a machine: `log` is the file, `groups` who is how
far in it, `broker` brings the two together, and `serving` is the Unix socket that other processes reach it by.
"""
