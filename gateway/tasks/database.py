"""Where tasks are kept: SQLite in the folder of the state by default, or Postgres, which several gateways share."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.settings import Settings

_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 4_000
_MARKER_TABLE = "dbos_migrations"
"""The table by which a database of tasks is known."""
_CORRUPTION_MESSAGES = (
    "no such table",
    "no such column",
    "already exists",
    "malformed",
    "not a database",
    "readonly database",
)
_REMEDY_HINT = "Move it away and a new one is made, without its tasks; or name another with TRITONIC_TASKS."
UNUSABLE_MESSAGE = "This service cannot use its database of tasks; its log says why."
"""What callers are told: paths are none of their business."""
_TCP_USER_TIMEOUT_MILLISECONDS = 6_000
"""How long a packet may stay unanswered: so a database that is cut off is noticed, not after a quarter of an hour."""


class DatabaseError(Exception):
    """The setting `tasks` names no database. The message says what is wrong."""


class Database:
    """An address, and how to connect to it so that nothing waits for ever."""

    def __init__(self, settings: Settings) -> None:
        """Raises `DatabaseError`. Nothing is opened."""
        given = settings.tasks.get_secret_value() if settings.tasks else None
        self.path: Path | None = None
        """The file, where it is SQLite."""
        if given is None:
            self.path = (settings.state / "tasks.sqlite").resolve()
        elif given.startswith("sqlite:///"):
            self.path = Path(given.removeprefix("sqlite:///")).resolve()
        elif not given.startswith(("postgresql://", "postgres://")):
            scheme = given.partition(":")[0][:20]
            raise DatabaseError(f"TRITONIC_TASKS: begins with sqlite:/// or postgresql://, not with {scheme}")
        self.url = f"sqlite:///{self.path}" if self.path else "postgresql://" + (given or "").partition("://")[2]
        self.liveness_folder = self.path.with_name("gateways") if self.path else (settings.state / "gateways").resolve()
        """Where the gateways of this machine that keep these tasks can see one another."""

    @property
    def may_exist(self) -> bool:
        """Whether there may be tasks: of Postgres that is not known before it is asked."""
        return self.path is None or self.path.exists()

    def diagnose(self) -> str | None:
        """Say what keeps SQLite's file from being used, and what helps; None where nothing is seen that would.

        Nothing is made or changed. Of Postgres nothing is known before it is asked.
        """
        if self.path is None:
            return None
        if wrong := _file_problem(self.path):
            return f"Tasks cannot be kept: {wrong}. {_REMEDY_HINT}"
        folder = next(each for each in (self.path.parent, *self.path.parent.parents) if each.exists())
        for needed in (folder, self.liveness_folder):
            if needed.exists() and not (needed.is_dir() and os.access(needed, os.R_OK | os.W_OK | os.X_OK)):
                return f"Tasks cannot be kept: {needed} is no folder that this user can write to."
        return None

    def explain(self, error: Exception) -> str | None:
        """Say the same after an error of the database; None where waiting may mend it. Reads the file."""
        if self.path is None:
            return None
        if is_disk_full(error):
            return f"Tasks cannot be kept: the disk of {self.path} is full."
        if found := self.diagnose():
            return found
        if is_corrupted(error):
            told = str(error).partition("\n")[0][:200]
            return f"Tasks cannot be kept: {self.path} is damaged, or of another version ({told}). {_REMEDY_HINT}"
        return None

    def prepare(self) -> None:
        """Make the file, for its owner's eyes alone, so that readers and a writer pass each other. Raises `OSError`."""
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
        """Return what psycopg is to be told; those who are not `patient` have a caller who waits."""
        if self.path is not None:
            return {}
        options: dict[str, Any] = {
            "application_name": "tritonic",
            "connect_timeout": _CONNECT_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": _TCP_USER_TIMEOUT_MILLISECONDS,
        }
        return options if patient else options | {"options": f"-c statement_timeout={_STATEMENT_MILLISECONDS}"}


def is_disk_full(error: Exception) -> bool:
    """Whether SQLite or Postgres says that there is no room."""
    return any(words in str(error) for words in ("database or disk is full", "No space left on device"))


def is_corrupted(error: Exception) -> bool:
    """Whether SQLite says that its file is not what it has to be, so that no wait helps."""
    return any(words in str(error) for words in _CORRUPTION_MESSAGES)


def _file_problem(path: Path) -> str | None:
    """Say why a path is no database of tasks; None where there is nothing, or one."""
    if not path.exists():
        return None
    if not path.is_file():
        return f"{path} is no file"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"this user cannot read and write {path}"
    if path.stat().st_size == 0:
        return None
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", timeout=1, uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        # One that is busy can be used.
        return None if "locked" in str(error) else f"{path} cannot be opened ({error})"
    except sqlite3.DatabaseError as error:
        return f"{path} is no database of SQLite, or a damaged one ({error})"
    return f"{path} is the database of something else" if tables and _MARKER_TABLE not in tables else None


def check_settings(settings: Settings) -> None:
    """Raise `DatabaseError` where the settings name no database."""
    Database(settings)
