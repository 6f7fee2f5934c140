"""What DBOS must not do in a service, where its settings have no word for it.

**Unpickle.** Each of its rows says how it was serialised, and DBOS believes the row: whatever serializer it was given,
a row that says `py_pickle` is unpickled, which runs whatever code its author put into it. Whoever can write to the
database could then run code in every process that reads it. Nothing of ours is ever pickled.

**Sleep on.** While its database is away it tries again for ever, in threads that Python waits for at its end, with naps
of up to a minute. A process that stops must not wait for that, nor a saga, once the database is back.

**Write to standard error**, which it does by a handler of its own where its logger has none.
"""

import logging
import threading
import time
from importlib import import_module
from typing import Any, NoReturn

LONGEST_NAP_S = 2.0


class Naps:
    """Stands in for the module `time` in DBOS's database code: its naps are short, and end when we close."""

    def __init__(self) -> None:
        self._closing = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Wait, not as long as asked for."""
        self._closing.wait(min(seconds, LONGEST_NAP_S))

    def end(self) -> None:
        """Wake whoever sleeps, and let nobody sleep any more."""
        self._closing.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def teach() -> Naps:
    """Have DBOS behave, from now on and in the whole process; its naps, to be ended."""
    pickles: Any = import_module("dbos._serialization").DefaultSerializer
    pickles.serialize = _refuse
    pickles.deserialize = _refuse
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.addFilter(_FirstLine())
    naps = Naps()
    database: Any = import_module("dbos._sys_db")
    database.time = naps
    return naps


def _refuse(*_: object) -> NoReturn:
    raise ValueError("pickles are neither written nor read here: the row was not written by sagas")


class _FirstLine(logging.Filter):
    """Takes the tracebacks from DBOS's lines, which can hold data of sagas, and whatever they say of our own doings."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = record.getMessage().partition("\n")[0], ()
        record.exc_info = None
        # Runs that are cancelled on purpose are no news.
        return "Asyncio task cancelled" not in record.msg
