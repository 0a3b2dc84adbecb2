"""Dequeues on SQLite hold the write lock from their first statement on."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, text

from gateway.tasks.sqlite_dequeues import lock_dequeues


class SystemDatabase:
    """As DBOS's: sqlite3 begins a transaction at the first statement that writes; a dequeue reads first."""

    def __init__(self, path: Path) -> None:
        self.engine: Engine = create_engine(f"sqlite:///{path}")
        self._other = sqlite3.connect(path, timeout=0, isolation_level=None)
        event.listen(self.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", "IMMEDIATE"))
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE tasks (id INTEGER)"))

    def start_queued_workflows(self) -> bool:
        return self.read_while_others_write()

    def read_while_others_write(self) -> bool:
        """Return whether another process can write after this transaction has read."""
        with self.engine.begin() as connection:
            connection.execute(text("SELECT count(*) FROM tasks"))
            try:
                self._other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                assert str(error) == "database is locked"
                return False
            self._other.execute("ROLLBACK")
            return True


@pytest.fixture
def database(tmp_path: Path) -> SystemDatabase:
    return SystemDatabase(tmp_path / "tasks.sqlite")


def test_without_the_lock_others_write_between_count_and_claim(database: SystemDatabase) -> None:
    assert database.start_queued_workflows()


def test_a_dequeue_locks_the_file_from_its_first_statement_on(database: SystemDatabase) -> None:
    lock_dequeues(database)
    assert not database.start_queued_workflows()
    assert database.read_while_others_write(), "other transactions begin as before"
