"""Which gateways are alive, so that the tasks of those that are not can be taken over, and no others.

Gateways of one machine see one another by locks on files, which the kernel frees however a process ends. Those that
share a Postgres see one another by its advisory locks, which it frees when a connection ends.
"""

import fcntl
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psycopg

from gateway.tasks.database import Database

_LOCK_CLASS = 0x7247  # any number that is our own: advisory locks have two, and the second says which gateway it is
_MAX_SLOTS = 256


class ExecutorSlot:
    """The place of this gateway among those of this machine.

    Whoever comes after a gateway that was killed takes the same seat, and so finds its tasks by its `name` at once.
    """

    def __init__(self, folder: Path) -> None:
        """Take the first seat that is free. Raises `OSError` where the folder cannot be written to."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for number in range(_MAX_SLOTS):
            lock = (folder / f"{number}.lock").open("a+", errors="replace")  # what is no name is replaced by one
            if _try_lock(lock):
                break
            lock.close()
        else:
            raise OSError(f"{folder}: {_MAX_SLOTS} gateways keep tasks here already")
        self._lock = lock
        lock.seek(0)
        machine = socket.gethostname()
        name = lock.read().strip()
        if not name.startswith(f"{machine}-"):
            # A folder may be copied to another machine, where its name would stand for two gateways.
            name = f"{machine}-{uuid.uuid4().hex[:12]}"
            lock.seek(0)
            lock.truncate()
            lock.write(name)
            lock.flush()
        self.name = name

    def live_names(self) -> set[str]:
        """Return the names of the gateways of this machine that are alive."""
        names = {self.name}
        for path in self._folder.glob("*.lock"):
            with suppress(FileNotFoundError), path.open("r+", errors="replace") as lock:
                if path != Path(self._lock.name) and not _try_lock(lock):
                    names.add(lock.read().strip())
        return names

    def release(self) -> None:
        """Free the seat."""
        self._lock.close()


def _try_lock(file: IO[str]) -> bool:
    """Lock a file, until it is closed, unless another process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class ExecutorLiveness:
    """Who keeps the tasks of one database. Its methods block; call them in a thread."""

    def __init__(self, database: Database, seat: ExecutorSlot) -> None:
        self._database = database
        self._slot = seat
        self._connection: psycopg.Connection[Any] | None = None

    def find_dead(self, names: set[str]) -> set[str]:
        """Return which of these gateways are not alive. Raises `psycopg.Error` where the database does not answer."""
        others = names - {self._slot.name}
        if self._database.path is not None:
            return others - self._slot.live_names() if others else set()
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = psycopg.connect(
                self._database.url, autocommit=True, **self._database.connect_options(patient=False)
            )
        # Always asked, though there may be no others: it shows whether this gateway still holds its own.
        found = connection.execute(
            "SELECT objid::bigint, pid = pg_backend_pid() FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND classid = %s AND objsubid = 2"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (_LOCK_CLASS,),
        ).fetchall()
        if not any(ours for _, ours in found):
            # Where it is taken, a connection of this gateway's has broken and is not missed yet: next time it is free.
            connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, _to_signed(_lock_id(self._slot.name)))
            )
        held = {number for number, _ in found}
        return {name for name in others if _lock_id(name) not in held}

    def release(self) -> None:
        """Be absent from now on."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()


def _lock_id(name: str) -> int:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).int & 0xFFFFFFFF


def _to_signed(number: int) -> int:
    """Advisory locks take signed integers, and show unsigned ones."""
    return number - (1 << 32) if number >= 1 << 31 else number
