"""The gateway's settings, with one sentence for each that is wrong."""

from typing import Any

from pydantic import ValidationError

from gateway.files import object_stores
from gateway.models import models_file
from gateway.settings import Settings
from gateway.tasks import database
from tritonic.errors import TritonicError


class SettingsError(TritonicError):
    """Settings are wrong; the message names each by its environment variable."""


def read(**given: Any) -> Settings:
    """Read the settings from the environment; what is given wins, and None gives nothing. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [
            f"TRITONIC_{'_'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise SettingsError("These settings are wrong:\n" + "\n".join(wrong)) from None


def check(**given: Any) -> Settings:
    """The same, and read the models file too, so that all that would end the gateway's start is known before it."""
    settings = read(**given)
    try:
        object_stores.check_settings(settings)
        database.check_settings(settings)
    except (object_stores.StoreError, database.DatabaseError) as error:
        raise SettingsError(str(error)) from None
    if settings.models_file:
        try:
            models_file.read(settings.models_file)
        except models_file.ModelsFileError as error:
            raise SettingsError(str(error)) from None
    return settings
