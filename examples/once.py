"""Requests that have their effect once, however often they are sent: what was answered under which `Idempotency-Key`.

Kept in SQLite, in a file that all instances of a service share, and written in one transaction with the effect. A key
that is used for another request is refused; see draft-ietf-httpapi-idempotency-key-header, section 2.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel
from toska_common.errors import InvalidInput

Effect = Callable[[sqlite3.Connection], BaseModel]


class Ledger:
    """The state of one service.

    Args:
        service: Names the file, in the mesh's home.
        tables: Statements that make its tables, where they are not there.
    """

    def __init__(self, service: str, tables: str) -> None:
        self._file = Path(os.environ.get("TOSKA_HOME", ".toska")) / "examples" / f"{service}.sqlite"
        self._tables = f"CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, request TEXT, answer TEXT);{tables}"

    def once(self, key: str, request: BaseModel, effect: Effect) -> str:
        """The JSON that `effect` answers, now or when the same request was here before.

        Raises:
            InvalidInput: The key was used for another request.
        """
        told = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        with closing(self.open()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("SELECT request, answer FROM answers WHERE key = ?", (key,)).fetchone()
            if found is not None:
                if found[0] != told:
                    reason = "was used for another request"
                    raise InvalidInput(
                        f"this key {reason}", problems=[{"field": "header.idempotency-key", "reason": reason}]
                    )
                return found[1]
            answer = effect(connection).model_dump_json()
            connection.execute("INSERT INTO answers VALUES (?, ?, ?)", (key, told, answer))
            return answer

    def open(self) -> sqlite3.Connection:
        """A connection, to be closed by the caller."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=10)
        connection.executescript(self._tables)
        return connection
