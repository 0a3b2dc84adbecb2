"""The database of the tasks: SQLite in the state folder by default, or Postgres, which several gateways can share."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.settings import Settings

_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 4_000
_MARKER_TABLE = "dbos_migrations"
"""A table that every database of tasks has."""
_CORRUPTION_MESSAGES = (
    "no such table",
    "no such column",
    "already exists",
    "malformed",
    "not a database",
    "readonly database",
)
_REMEDY_HINT = "Move it away to start with a new, empty database, or set TRITONIC_TASKS to another one."
UNUSABLE_MESSAGE = "The database of tasks cannot be used; the log of the service has the reason."
"""Message for callers. It contains no path: only the operator needs to know it."""
_TCP_USER_TIMEOUT_MILLISECONDS = 6_000
"""Most time without an acknowledgement. TCP's default would notice a lost connection only after 15 minutes."""

_SERVER_OPTIONS = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
    f" -c tcp_user_timeout={_TCP_USER_TIMEOUT_MILLISECONDS}"
)
"""Options of Postgres's side of a connection. By its defaults, a gateway whose machine or network is gone would keep
its locks for two hours: other gateways would not restart its tasks, and would wait for its rows."""


class DatabaseError(Exception):
    """The setting `tasks` does not name a database. The message says why."""


class Database:
    """The address of the database, and connection options with timeouts."""

    def __init__(self, settings: Settings) -> None:
        """Parse the setting `tasks`; open nothing. Raises `DatabaseError`."""
        address = settings.tasks.get_secret_value() if settings.tasks else None
        self.path: Path | None = None
        """The file of SQLite; None for Postgres."""
        if address is None:
            self.path = (settings.state / "tasks.sqlite").resolve()
        elif address.startswith("sqlite:///"):
            self.path = Path(address.removeprefix("sqlite:///")).resolve()
        elif not address.startswith(("postgresql://", "postgres://")):
            scheme = address.partition(":")[0][:20]
            raise DatabaseError(f"TRITONIC_TASKS must begin with sqlite:/// or postgresql://, not with {scheme}")
        self.url = f"sqlite:///{self.path}" if self.path else "postgresql://" + (address or "").partition("://")[2]
        self.liveness_folder = self.path.with_name("gateways") if self.path else (settings.state / "gateways").resolve()
        """Folder of the lock files of this machine's gateways that share the database (`gateway.tasks.liveness`)."""

    @property
    def may_exist(self) -> bool:
        """True if the database may exist. Always true for Postgres, which only a connection could check."""
        return self.path is None or self.path.exists()

    def diagnose(self) -> str | None:
        """Return the problem that makes SQLite's file unusable, with a remedy; None if there is none.

        Reads only. Always None for Postgres, which only a connection could check.
        """
        if self.path is None:
            return None
        if problem := _file_problem(self.path):
            return f"Tasks cannot be stored: {problem}. {_REMEDY_HINT}"
        folder = next(path for path in (self.path.parent, *self.path.parent.parents) if path.exists())
        for required in (folder, self.liveness_folder):
            if required.exists() and not (required.is_dir() and os.access(required, os.R_OK | os.W_OK | os.X_OK)):
                return f"Tasks cannot be stored: {required} is not a folder that this user can write to."
        return None

    def explain(self, error: Exception) -> str | None:
        """Return the permanent cause of an error of the database, with a remedy; None if a retry may succeed.

        Reads the file.
        """
        if self.path is None:
            return None
        if is_disk_full(error):
            return f"Tasks cannot be stored: the disk of {self.path} is full."
        if problem := self.diagnose():
            return problem
        if is_corrupted(error):
            message = str(error).partition("\n")[0][:200]
            return f"Tasks cannot be stored: {self.path} is damaged, or has another version ({message}). {_REMEDY_HINT}"
        return None

    def prepare(self) -> None:
        """Create SQLite's file, for its owner only, in WAL mode: readers do not block the writer. Raises `OSError`."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(self.path, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.Error as error:
            raise OSError(f"{self.path}: {error}") from error
        finally:
            connection.close()

    def connect_options(self, *, patient: bool) -> dict[str, Any]:
        """Return connection options for psycopg; empty for SQLite.

        Without `patient` a statement times out after 4 seconds: a caller waits for it.
        """
        if self.path is not None:
            return {}
        options: dict[str, Any] = {
            "application_name": "tritonic",
            # Without it, texts of a database in SQL_ASCII arrive as bytes.
            "client_encoding": "utf8",
            "connect_timeout": _CONNECT_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": _TCP_USER_TIMEOUT_MILLISECONDS,
            "options": _SERVER_OPTIONS,
        }
        if not patient:
            options["options"] += f" -c statement_timeout={_STATEMENT_MILLISECONDS}"
        return options


def is_disk_full(error: Exception) -> bool:
    """Return whether SQLite or Postgres reports a full disk."""
    return any(words in str(error) for words in ("database or disk is full", "No space left on device"))


def is_corrupted(error: Exception) -> bool:
    """Return whether SQLite reports a file that is damaged or not its own, so that no retry helps."""
    return any(words in str(error) for words in _CORRUPTION_MESSAGES)


def _file_problem(path: Path) -> str | None:
    """Return why `path` is no usable database of tasks; None if it is one, or does not exist."""
    if not path.exists():
        return None
    if not path.is_file():
        return f"{path} is not a file"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"this user cannot read and write {path}"
    if path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=1, uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        # A database that is locked by a writer is usable.
        return None if "locked" in str(error) else f"{path} cannot be opened ({error})"
    except sqlite3.DatabaseError as error:
        return f"{path} is not an SQLite database, or is damaged ({error})"
    return f"{path} is the database of another application" if tables and _MARKER_TABLE not in tables else None


def check_settings(settings: Settings) -> None:
    """Raise `DatabaseError` if the setting `tasks` does not name a database."""
    Database(settings)
