"""The storage of files: a folder, or a bucket of an object store."""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.store import LocalStore, ObjectStore, from_url

from gateway.settings import Settings

_CONNECT_TIMEOUT = timedelta(seconds=5)
_REQUEST_TIMEOUT = timedelta(seconds=60)
_RETRY_TIMEOUT = timedelta(seconds=20)


class StoreError(Exception):
    """The setting `files` does not name a usable store. The message has the reason."""


def local_folder(settings: Settings) -> Path | None:
    """Return the absolute path of the folder, None if files are in a bucket."""
    if not settings.files:
        return (settings.state / "files").resolve()
    address = urlsplit(settings.files)
    if address.scheme == "file":
        return Path(url2pathname(address.path)).resolve()
    return None if "://" in settings.files else Path(settings.files).resolve()


def check_settings(settings: Settings) -> None:
    """Raise `StoreError` if the settings contradict each other or name no store. Connects to nothing."""
    if settings.files_style == "path" and local_folder(settings) is None:
        raise StoreError(f"TRITONIC_FILES_STYLE: 'path' requires files in a folder, not in {settings.files}")
    _open_store(settings, make=False)


def open_store(settings: Settings) -> ObjectStore:
    """Return the store, and create its folder if needed. Raises `StoreError` and `OSError`."""
    return _open_store(settings, make=True)


def _open_store(settings: Settings, *, make: bool) -> ObjectStore:
    local = local_folder(settings)
    if local is not None:
        if make:
            # With paths in responses, any user of this machine must be able to open the files.
            local.mkdir(parents=True, exist_ok=True, mode=0o755 if settings.files_style == "path" else 0o750)
            return LocalStore(local)
        return LocalStore()
    assert settings.files is not None
    try:
        return from_url(
            settings.files,
            client_options={
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _REQUEST_TIMEOUT,
                "allow_http": _allows_http(),
            },
            retry_config={"max_retries": 4, "retry_timeout": _RETRY_TIMEOUT},
        )
    except Exception as error:  # obstore's own errors and ValueError, by the kind of mistake
        raise StoreError(f"TRITONIC_FILES: {settings.files} cannot be used: {error}") from None


def _allows_http() -> bool:
    """Return whether the usual variables allow HTTP. obstore ignores them when it is given client options."""
    values = (os.environ.get(f"{cloud}_ALLOW_HTTP", "") for cloud in ("AWS", "AZURE", "GOOGLE"))
    return any(value.lower() in ("true", "1", "yes", "on", "y", "t") for value in values)
