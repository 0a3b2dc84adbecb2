"""Checks of the state folder at startup, so that problems are reported before the first request."""

from gateway.files import signing
from gateway.settings import Settings
from gateway.tasks.database import Database


def find_problems(settings: Settings) -> list[str]:
    """Return a sentence for each part of the state that is unusable. The gateway runs without that part.

    Reads only. Raises `DatabaseError` if the setting `tasks` does not name a database.
    """
    key_problem = None if settings.files_key else signing.diagnose(settings.state / "files.key")
    return [problem for problem in (key_problem, Database(settings).diagnose()) if problem]
