"""Where tasks are kept: SQLite in the folder of the state by default, or Postgres, which several gateways share."""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.settings import Settings

_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 4_000
_SILENCE_MILLISECONDS = 6_000
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
        self.presence_folder = self.path.with_name("gateways") if self.path else (settings.state / "gateways").resolve()
        """Where the gateways of this machine that keep these tasks can see one another."""

    @property
    def is_there(self) -> bool:
        """Whether there may be tasks: of Postgres that is not known before it is asked."""
        return self.path is None or self.path.exists()

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
            "tcp_user_timeout": _SILENCE_MILLISECONDS,
        }
        return options if patient else options | {"options": f"-c statement_timeout={_STATEMENT_MILLISECONDS}"}


def check(settings: Settings) -> None:
    """Raise `DatabaseError` where the settings name no database."""
    Database(settings)
