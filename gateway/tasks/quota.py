"""How many open tasks an owner may have, held exactly by all gateways that share a database."""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import sqlalchemy
from sqlalchemy import Connection, Engine, event

from gateway.tasks.database import Database
from gateway.tasks.task import QuotaExceeded

_LOCK_CLASS = 0x7248  # any number that is our own: advisory locks have two, and the second stands for the owner
_LOCK_MILLISECONDS = 4_000
"""How long a submission waits for another one of SQLite's writers."""


class Quota:
    """Counts and adds within one transaction, which no other one of the same owner passes.

    SQLite has one writer at a time. Postgres has a lock for the owner, which ends with the transaction.
    """

    def __init__(self, database: Database, engine: Engine | None, name: str, states: list[str]) -> None:
        """Count tasks of this `name` in these `states`; `engine` leads to Postgres."""
        self._is_postgres = engine is not None
        self._engine = _create_writer_engine(database) if engine is None else engine
        listed = ", ".join(f"'{state}'" for state in states)
        self._count_query = sqlalchemy.text(
            f"SELECT count(*) FROM (SELECT 1 FROM {'dbos.' if self._is_postgres else ''}workflow_status"
            f" WHERE authenticated_user = :owner AND name = '{name}' AND status IN ({listed}) LIMIT :most) AS open"
        )
        self._submit_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def submit_lock(self, owner: str) -> asyncio.Lock:
        """Return what lets one submission of this owner at a time ask: its others need not wait in the database."""
        return self._submit_locks.setdefault(owner, asyncio.Lock())

    def add_within_limit(self, owner: str, most: int, add: Callable[[Connection], None]) -> None:
        """Call `add` with a connection, and commit, where the owner has fewer than `most` open tasks.

        Blocks; raises `QuotaReached`, and what the database does.
        """
        with self._engine.begin() as connection:
            if self._is_postgres:
                lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(:class, hashtext(:owner))")
                connection.execute(lock, {"class": _LOCK_CLASS, "owner": owner})
            if connection.execute(self._count_query, {"owner": owner, "most": most}).scalar_one() >= most:
                raise QuotaExceeded
            add(connection)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _create_writer_engine(database: Database) -> Engine:
    """Return an engine for SQLite whose transactions write from their beginning: what is counted stays so."""
    engine = sqlalchemy.create_engine(database.url, connect_args={"timeout": _LOCK_MILLISECONDS / 1000})

    @event.listens_for(engine, "connect")
    def connected(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # sqlite3 would begin by itself, and too late

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
