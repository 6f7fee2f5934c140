"""The router's tables and how they came to be as they are, a step in `versions` for each change of them.

A change of `tables` brings a step of its own and moves `HEAD`; a test compares what the steps make with the tables.
"""

from toska_router.tables import METADATA

__all__ = ["HEAD", "METADATA"]

HEAD = "0002"
"""Revision of the newest step: what tables that are made anew are marked with, without loading Alembic."""
