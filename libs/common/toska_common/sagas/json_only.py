"""Keeps DBOS from unpickling.

Each of its rows says how it was serialised, and DBOS believes the row: whatever serializer it was given, a row that
says `py_pickle` is unpickled, which runs whatever code its author put into it. Whoever can write to the database
could then run code in every process that reads it. Nothing of ours is ever pickled.
"""

from importlib import import_module
from typing import Any, NoReturn


def refuse_pickles() -> None:
    """Have DBOS refuse rows that say they are pickles, from now on, in the whole process."""
    pickles: Any = import_module("dbos._serialization").DefaultSerializer
    pickles.serialize = _refuse
    pickles.deserialize = _refuse


def _refuse(*_: object) -> NoReturn:
    raise ValueError("pickles are neither written nor read here: the row was not written by sagas")
