"""A shop whose orders are sagas, and its books: what happened outside of the sagas, and outlives every process."""

import os
import signal
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import anyio
from pydantic import BaseModel
from toska_common.sagas import Attempt, Refused, Retry, Run, saga, step

QUICK = Retry(attempts=3, base=timedelta(milliseconds=5))


class Books:
    """A ledger in a file of its own, kept as services keep theirs that honour idempotency keys."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = Path("books.sqlite")
        if folder is not None:
            self.open(folder)

    def open(self, folder: Path) -> None:
        """Keep them in this folder from now on."""
        self._file = folder / "books.sqlite"
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS calls (at INTEGER PRIMARY KEY, saga, deed, key, pid)")
            connection.execute("CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, saga, deed, amount)")

    def call(self, attempt: Attempt, deed: str) -> None:
        """Somebody came with a wish."""
        with self._open() as connection, connection:
            row = (attempt.saga_id, deed, attempt.idempotency_key, os.getpid())
            connection.execute("INSERT INTO calls (saga, deed, key, pid) VALUES (?, ?, ?, ?)", row)

    def do(self, attempt: Attempt, deed: str, amount: int) -> None:
        """It is done, if it was not before."""
        with self._open() as connection, connection:
            row = (attempt.idempotency_key, attempt.saga_id, deed, amount)
            connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?, ?)", row)

    def undo(self, attempt: Attempt, deed: str, amount: int) -> None:
        """What was done under the key that the attempt undoes is made good, if it was done."""
        with self._open() as connection, connection:
            found = connection.execute("SELECT 1 FROM effects WHERE key = ?", (attempt.undoes,)).fetchone()
            if found:
                row = (attempt.idempotency_key, attempt.saga_id, deed, -amount)
                connection.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?, ?)", row)

    def calls(self, saga_id: str) -> list[str]:
        """All wishes for a saga, in their order."""
        with self._open() as connection:
            rows = connection.execute("SELECT deed FROM calls WHERE saga = ? ORDER BY at", (saga_id,))
            return [deed for (deed,) in rows]

    def effects(self, saga_id: str) -> dict[str, int]:
        """What was done for a saga, with how often, less how often it was undone."""
        with self._open() as connection:
            rows = connection.execute("SELECT deed, sum(amount) FROM effects WHERE saga = ? GROUP BY deed", (saga_id,))
            return dict(rows.fetchall())

    def _open(self) -> "closing[sqlite3.Connection]":
        return closing(sqlite3.connect(self._file, timeout=20))


class Order(BaseModel):
    """An order, and what is to go wrong with it."""

    items: int = 1
    refuse: str = ""
    """Step that refuses."""
    fail: dict[str, int] = {}
    """How often deeds fail before they are done; `undo charge` is a deed, too."""
    hang: str = ""
    """Step that does not answer, once its effect is there."""


class Receipt(BaseModel):
    """What a deed is known by."""

    number: str


books = Books()
die_at: dict[str, str] = {}
"""By saga: `charge before` dies before the effect, `charge after` after it and before anything is recorded."""
gate: Path | None = None
"""With a folder: `charge` waits there, before its effect, for a file with the saga's name."""


async def _deed(order: Order, attempt: Attempt, deed: str) -> Receipt:
    books.call(attempt, deed)
    _die(attempt, deed, "before")
    if books.calls(attempt.saga_id).count(deed) <= order.fail.get(deed, 0):
        raise ConnectionError(f"no route to {deed}")
    if order.refuse == deed:
        raise Refused(f"no {deed} for you")
    if gate is not None and deed == "charge":
        while not (gate / attempt.saga_id).exists():  # noqa: ASYNC110 - what another process does is no event
            await anyio.sleep(0.01)
    if attempt.undoes:
        books.undo(attempt, deed.removeprefix("undo "), order.items)
    else:
        books.do(attempt, deed, order.items)
    _die(attempt, deed, "after")
    if order.hang == deed:
        await anyio.sleep_forever()
    return Receipt(number=attempt.idempotency_key)


def _die(attempt: Attempt, deed: str, when: str) -> None:
    if die_at.get(attempt.saga_id) == f"{deed} {when}":
        os.kill(os.getpid(), signal.SIGKILL)


@step(retry=QUICK)
async def reserve(order: Order, attempt: Attempt) -> Receipt:
    return await _deed(order, attempt, "reserve")


@reserve.compensation(retry=QUICK)
async def release(order: Order, _: Receipt | None, attempt: Attempt) -> None:
    await _deed(order, attempt, "undo reserve")


@step(retry=QUICK, timeout=timedelta(seconds=60))
async def charge(order: Order, attempt: Attempt) -> Receipt:
    return await _deed(order, attempt, "charge")


@charge.compensation(retry=QUICK)
async def refund(order: Order, _: Receipt | None, attempt: Attempt) -> None:
    await _deed(order, attempt, "undo charge")


@step(retry=QUICK, timeout=timedelta(milliseconds=300))
async def ship(order: Order, attempt: Attempt) -> Receipt:
    return await _deed(order, attempt, "ship")


@ship.compensation(retry=QUICK)
async def call_back(order: Order, _: Receipt | None, attempt: Attempt) -> None:
    await _deed(order, attempt, "undo ship")


@saga("place-order")
async def place_order(order: Order, run: Run) -> Receipt:
    await run(reserve, order)
    paid = await run(charge, order)
    await run(ship, order)
    if die_at.get(run.saga_id) == "end":
        os.kill(os.getpid(), signal.SIGKILL)
    return paid
