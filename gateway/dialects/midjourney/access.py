"""Authentication by `mj-api-secret` or a bearer token, signed URLs of pictures, and the mode in the path."""

from fastapi import Request

from gateway import rate_rules
from gateway.errors import NotFound
from gateway.files.file_store import FileStore
from gateway.http import api_keys
from gateway.operations.generate_image import Effort
from gateway.settings import Settings
from gateway.tasks.task import owner_id

SECRET_HEADER = "mj-api-secret"  # noqa: S105
_EFFORTS: dict[str, Effort] = {"mj-fast": "medium", "mj-turbo": "low", "mj-relax": "high"}
"""The effort of each mode: all of the model's default steps, half of them, and twice as many."""


def authorize(request: Request) -> str:
    """Return the id of the caller. Raises `Unauthorized`, and `NotFound` for an unknown mode in the path."""
    if request.path_params.get("mode", "mj-fast") not in _EFFORTS:
        raise NotFound(f"No route matches {request.url.path[:200]}. The modes are {', '.join(_EFFORTS)}.")
    settings: Settings = request.app.state.settings
    return api_keys.authenticate(request, settings.api_keys, _header(request))


def authorize_picture(request: Request) -> str:
    """Return the id of a caller who has a signed URL of a picture or, without a signature, a key.

    Raises as `authorize` does, and `Forbidden`.
    """
    query = request.query_params
    if "signature" not in query:
        return authorize(request)
    files: FileStore = request.app.state.files
    files.verify_name(picture_name(request.path_params["task_id"]), query.get("expires", ""), query["signature"])
    return rate_rules.caller_of_address(request.client.host if request.client else None)


def is_signed(request: Request) -> bool:
    """Return whether `authorize_picture` has checked a signature."""
    return "signature" in request.query_params


def picture_name(task_id: str) -> str:
    """Return the name that signed URLs of a task's picture are for."""
    return f"mj/{task_id}"


def task_owner(request: Request) -> str:
    """Return the id that owns the tasks of this caller in this dialect."""
    settings: Settings = request.app.state.settings
    keys = settings.api_keys
    return owner_id(f"midjourney {api_keys.match_api_key(request, keys, _header(request)) if keys else ''}")


def effort(request: Request) -> Effort:
    """Return the effort of the mode in the path."""
    return _EFFORTS[request.path_params.get("mode", "mj-fast")]


def effort_of_mode(word: str) -> Effort | None:
    """Return the effort of `fast`, `turbo` or `relax`; None for another word."""
    return _EFFORTS.get(f"mj-{word.lower()}")


def _header(request: Request) -> str:
    return SECRET_HEADER if request.headers.get(SECRET_HEADER) else api_keys.AUTHORIZATION
