"""How the relay whose turn it is hears of commits of other processes, before its interval is over.

Of SQLite its files are looked at: every commit shows there. On PostgreSQL a relay that is woken by its own process, and
finds that it is another one's turn, passes it on (`NOTIFY`): writers themselves do not, since PostgreSQL lets those who
notify commit one after the other. Where the driver is not asyncpg, nobody listens, and the interval has to do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from toska_common.database.watching import LOOKED_AT, stamp
from toska_common.events.outbox.sessions import Session, Transactions, dialect_of

log = structlog.get_logger(__name__)

_CHANNEL = "toska_outbox"
_ASKED_EVERY_S = 5.0
_PAUSE_S = 5.0


class News:
    """Tells of commits of others.

    Args:
        transactions: Begins transactions of the database.
        name: Whose outbox it is, and which relay of it.
        on_commit: Called when something may have been committed.
    """

    def __init__(self, transactions: Transactions, name: str, on_commit: Callable[[], None]) -> None:
        self._transactions = transactions
        self._name = name
        self._on_commit = on_commit
        self._was_told = False

    def read(self) -> bool:
        """Whether another relay told of something since the last time: then it need not be passed on."""
        was_told, self._was_told = self._was_told, False
        return was_told

    async def tell(self, session: Session) -> None:
        """Have others told, when `session`'s transaction is committed."""
        if dialect_of(session) == "postgresql":
            await session.execute(sa.select(sa.func.pg_notify(_CHANNEL, self._name)))

    async def run(self) -> None:
        """Listen, for ever."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - whatever a driver has to say of a database that is away
                log.debug("outbox_listening_lost", reason=type(error).__name__)
            self._on_commit()  # whatever was missed
            await anyio.sleep(_PAUSE_S)

    async def _listen(self) -> None:
        async with self._transactions() as session:
            file = session.engine.url.database if dialect_of(session) == "sqlite" else None
            driver = session.dialect.driver
        if file:
            await self._watch(Path(file))
        elif driver == "asyncpg":
            async with session.engine.connect() as connection:
                await self._hear(connection)
        else:
            await anyio.sleep_forever()

    async def _watch(self, file: Path) -> None:
        files = (file, file.with_name(f"{file.name}-wal"))
        before = stamp(*files)
        while True:
            await anyio.sleep(LOOKED_AT.total_seconds())
            now = stamp(*files)
            if now != before:
                before = now
                self._on_commit()

    async def _hear(self, connection: AsyncConnection) -> None:
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        raw.detach()  # the pool has another one made for whoever needs it
        lost = anyio.Event()

        def ended(_: object) -> None:
            lost.set()

        try:
            await driver.add_listener(_CHANNEL, self._heard)
            driver.add_termination_listener(ended)
            while not lost.is_set():
                with anyio.move_on_after(_ASKED_EVERY_S):
                    await lost.wait()
                if not lost.is_set():
                    await driver.execute("SELECT 1")  # a peer that vanished is noticed by its silence
        finally:
            driver.terminate()

    def _heard(self, _connection: object, _pid: int, _channel: str, name: str) -> None:
        if name != self._name and name.rpartition(" ")[0] == self._name.rpartition(" ")[0]:
            self._was_told = True
            self._on_commit()
