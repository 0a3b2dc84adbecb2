"""Detects dead gateways, so that other gateways take over their tasks, and only theirs.

Gateways of one machine detect one another by locks on files, which the kernel releases however a process ends. Gateways
that share a Postgres detect one another by its advisory locks, which it releases when a connection ends.
"""

import fcntl
import socket
import uuid
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psycopg

from gateway.tasks.database import Database

_LOCK_CLASS = 0x7247  # an arbitrary number: an advisory lock has two, and the second identifies the gateway
_MAX_SLOTS = 256


class ExecutorSlot:
    """The slot of this gateway among the gateways of this machine; its `name` marks the tasks that run in it.

    The gateway that follows a killed one takes the same slot, and so has its name and its tasks at once.
    """

    def __init__(self, folder: Path) -> None:
        """Take the first free slot. Raises `OSError` if the folder is not writable, or 256 slots are taken."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        for number in range(_MAX_SLOTS):
            lock = (folder / f"{number}.lock").open("a+", errors="replace")  # an unreadable name is replaced below
            if _try_lock(lock):
                break
            lock.close()
        else:
            raise OSError(f"{folder}: all {_MAX_SLOTS} slots are taken by other gateways")
        self._lock = lock
        lock.seek(0)
        machine = socket.gethostname()
        name = lock.read().strip()
        if not name.startswith(f"{machine}-"):
            # A folder may be copied to another machine; then two gateways would have one name.
            name = f"{machine}-{uuid.uuid4().hex[:12]}"
            lock.seek(0)
            lock.truncate()
            lock.write(name)
            lock.flush()
        self.name = name

    def live_names(self) -> set[str]:
        """Return the names of this machine's gateways that are alive, this one included."""
        names = {self.name}
        for path in self._folder.glob("*.lock"):
            with suppress(FileNotFoundError), path.open("r+", errors="replace") as lock:
                if path != Path(self._lock.name) and not _try_lock(lock):
                    names.add(lock.read().strip())
        return names

    @contextmanager
    def locked(self, names: Set[str]) -> Iterator[set[str]]:
        """Hold the slots of dead gateways, and yield those of `names` that no gateway of this machine has.

        A gateway that starts meanwhile takes another slot. Otherwise it would have the name of the dead one, and both
        it and this gateway would restart the same tasks.
        """
        with ExitStack() as locks:
            free = set(names)
            for path in self._folder.glob("*.lock"):
                with suppress(FileNotFoundError):
                    lock = locks.enter_context(path.open("r+", errors="replace"))
                    name = lock.read().strip()
                    if name in free and not _try_lock(lock):
                        free.discard(name)
            yield free

    def release(self) -> None:
        """Release the slot."""
        self._lock.close()


def _try_lock(file: IO[str]) -> bool:
    """Lock a file until it is closed. Return False if another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class ExecutorLiveness:
    """Liveness of the gateways that share one database. The methods block; call them in a thread."""

    def __init__(self, database: Database, slot: ExecutorSlot) -> None:
        self._database = database
        self._slot = slot
        self._connection: psycopg.Connection[Any] | None = None

    def find_dead(self, names: set[str]) -> set[str]:
        """Return those of `names` whose gateways are dead. Raises `psycopg.Error` if the database does not answer."""
        others = names - {self._slot.name}
        if self._database.path is not None:
            return others - self._slot.live_names() if others else set()
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = psycopg.connect(
                self._database.url, autocommit=True, **self._database.connect_options(patient=False)
            )
        # Queried even without other gateways: the result shows whether this gateway still holds its own lock.
        locks = connection.execute(
            "SELECT objid::bigint, pid = pg_backend_pid() FROM pg_locks"
            " WHERE locktype = 'advisory' AND granted AND classid = %s AND objsubid = 2"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (_LOCK_CLASS,),
        ).fetchall()
        if not any(is_own for _, is_own in locks):
            # If the lock is taken, Postgres has not noticed yet that an older connection of this gateway is broken.
            connection.execute(
                "SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, _to_signed(_lock_id(self._slot.name)))
            )
        locked_ids = {number for number, _ in locks}
        return {name for name in others if _lock_id(name) not in locked_ids}

    def release(self) -> None:
        """Close the connection, which releases the lock: this gateway counts as dead from now on."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()


def _lock_id(name: str) -> int:
    return uuid.uuid5(uuid.NAMESPACE_OID, name).int & 0xFFFFFFFF


def _to_signed(number: int) -> int:
    """Convert a lock id: functions of advisory locks take signed integers, `pg_locks` shows unsigned ones."""
    return number - (1 << 32) if number >= 1 << 31 else number
