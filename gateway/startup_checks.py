"""What the gateway keeps in its folder, looked at before it is used, so that what is wrong is said at the start."""

from gateway.files import signing
from gateway.settings import Settings
from gateway.tasks.database import Database


def find_problems(settings: Settings) -> list[str]:
    """Return a sentence for each part of the state that cannot be used. The gateway serves without it.

    Raises `DatabaseError` where the setting `tasks` names no database. Nothing is made or changed.
    """
    key = None if settings.files_key else signing.diagnose(settings.state / "files.key")
    return [wrong for wrong in (key, Database(settings).diagnose()) if wrong]
