"""The tables of sagas and how they came to be as they are, a step in `versions` for each change of them."""

from toska_common.sagas.tables import METADATA

__all__ = ["HEAD", "METADATA"]

HEAD = "0001"
"""Revision of the newest step: what tables that are made anew are marked with, without loading Alembic."""
