"""The limit of open tasks of one owner, exact across all gateways that share a database."""

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary

import sqlalchemy
from sqlalchemy import Connection, Engine, event

from gateway.tasks.database import Database
from gateway.tasks.task import QuotaExceeded

_LOCK_CLASS = 0x7248  # an arbitrary number: an advisory lock has two, and the second identifies the owner
_LOCK_MILLISECONDS = 4_000
"""Most time that a submission waits for another writer of SQLite."""


class Quota:
    """Counts and adds tasks in one transaction; submissions of one owner run one after another.

    SQLite has one writer at a time. On Postgres the transaction holds an advisory lock of the owner.
    """

    def __init__(self, database: Database, engine: Engine | None, name: str, statuses: list[str]) -> None:
        """Count workflows of this `name` with one of these statuses. `engine` connects to Postgres; None: SQLite."""
        self._is_postgres = engine is not None
        self._engine = _create_writer_engine(database) if engine is None else engine
        quoted = ", ".join(f"'{status}'" for status in statuses)
        self._count_query = sqlalchemy.text(
            f"SELECT count(*) FROM (SELECT 1 FROM {'dbos.' if self._is_postgres else ''}workflow_status"
            f" WHERE authenticated_user = :owner AND name = '{name}' AND status IN ({quoted}) LIMIT :limit) AS open"
        )
        self._submit_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def submit_lock(self, owner: str) -> asyncio.Lock:
        """Return the lock of an owner's submissions in this process: they wait here, not on database connections."""
        return self._submit_locks.setdefault(owner, asyncio.Lock())

    def add_within_limit(self, owner: str, limit: int, add: Callable[[Connection], None]) -> None:
        """Call `add` with a connection and commit, if the owner has fewer than `limit` open tasks.

        Blocks. Raises `QuotaExceeded`, and the errors of the database.
        """
        with self._engine.begin() as connection:
            if self._is_postgres:
                lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(:class, hashtext(:owner))")
                connection.execute(lock, {"class": _LOCK_CLASS, "owner": owner})
            if connection.execute(self._count_query, {"owner": owner, "limit": limit}).scalar_one() >= limit:
                raise QuotaExceeded
            add(connection)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _create_writer_engine(database: Database) -> Engine:
    """Return an engine for SQLite whose transactions lock for writing at once, so that the count stays valid."""
    engine = sqlalchemy.create_engine(database.url, connect_args={"timeout": _LOCK_MILLISECONDS / 1000})

    @event.listens_for(engine, "connect")
    def on_connect(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # or else sqlite3 begins transactions itself, and too late

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
