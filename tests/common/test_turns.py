"""Writers on one SQLite file take turns."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from toska_common.database.turns import Turns, connect_in_turn, turns_of
from toska_tests.waiting import PATIENT_S


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_the_turn_goes_to_whoever_waited_longest() -> None:
    turns, order = Turns(), list[int]()
    turns.take()
    threads: list[threading.Thread] = []
    for number in range(5):
        waiting = threading.Event()

        def wait(number: int = number, waiting: threading.Event = waiting) -> None:
            waiting.set()
            turns.take(PATIENT_S)
            order.append(number)
            turns.give()

        threads.append(in_thread(wait))
        assert waiting.wait(PATIENT_S)
        while turns.waiting <= number:
            threading.Event().wait(0.001)
    turns.give()
    for thread in threads:
        thread.join(PATIENT_S)
    assert order == [0, 1, 2, 3, 4]


def test_who_waits_too_long_is_told_so_as_sqlite_tells_it_and_takes_nobodys_turn() -> None:
    turns = Turns()
    turns.take()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        turns.take(0.01)
    turns.give()
    turns.take(0.01)


def test_a_connection_has_its_turn_from_its_first_write_to_the_end_of_the_transaction(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    turns = turns_of(file)
    with closing(connect_in_turn(file)) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (n)")
        cursor.execute("SELECT * FROM t")
        assert not turns.is_taken
        for end in (connection.commit, connection.rollback):
            cursor.execute("INSERT INTO t VALUES (1)")
            cursor.execute("SELECT * FROM t")
            assert turns.is_taken
            end()
            assert not turns.is_taken
        cursor.executemany("INSERT INTO t VALUES (?)", [(2,), (3,)])
        assert turns.is_taken
    assert not turns.is_taken


def test_a_statement_that_is_refused_gives_the_turn_back_with_its_rollback(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    turns = turns_of(file)
    with closing(connect_in_turn(file)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            connection.cursor().execute("INSERT INTO missing VALUES (1)")
        connection.rollback()
        assert not turns.is_taken


def test_many_writers_are_all_done_without_one_being_told_that_the_file_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    kept = turns_of(file)
    with closing(connect_in_turn(file)) as connection:
        connection.cursor().execute("CREATE TABLE t (n)")
        connection.commit()
    errors: list[Exception] = []

    def write() -> None:
        try:
            with closing(connect_in_turn(file)) as connection:
                connection.execute("PRAGMA busy_timeout=0")  # SQLite itself waits for nobody
                for number in range(20):
                    connection.cursor().execute("INSERT INTO t VALUES (?)", (number,))
                    connection.commit()
        except sqlite3.Error as error:
            errors.append(error)

    threads = [in_thread(write) for _ in range(4)]
    for thread in threads:
        thread.join(PATIENT_S)
    assert not errors
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (80,)
    assert not kept.is_taken
