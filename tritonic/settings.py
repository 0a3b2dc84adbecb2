"""Reads the gateway's settings, with one error sentence for each wrong one."""

from typing import Any

from pydantic import ValidationError

from gateway.files import object_stores
from gateway.models import models_file
from gateway.settings import Settings
from gateway.tasks import database
from tritonic.errors import TritonicError


class SettingsError(TritonicError):
    """Settings are wrong; the message names each by its environment variable."""


def read(**overrides: Any) -> Settings:
    """Read the settings from the environment. Arguments that are not None override it. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        wrong = [
            f"TRITONIC_{'_'.join(map(str, e['loc'])).upper()}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise SettingsError("These settings are wrong:\n" + "\n".join(wrong)) from None


def check(**overrides: Any) -> Settings:
    """Read the settings, and check all that would make the gateway's start fail, also the models file.

    Raises SettingsError.
    """
    settings = read(**overrides)
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
