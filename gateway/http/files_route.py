"""GET /files/{id}: returns a generated file to anyone with its signed URL. No API key is required."""

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.files.file_store import FileStore
from gateway.http import stored_files

router = APIRouter(tags=["Files"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"image/png": _BINARY, "image/jpeg": _BINARY, "image/webp": _BINARY}},
    206: {"description": "The requested part of the file.", "content": {"image/png": _BINARY}},
    304: {"description": "The client has this version of the file already."},
    403: {"description": "The signature does not match the URL, or the URL has expired."},
    404: {"description": "The file does not exist, or was removed."},
    416: {"description": "The file ends before the requested part."},
    503: {"description": "The storage does not respond."},
}


@router.head("/files/{file}", include_in_schema=False)
@router.get("/files/{file}", summary="Fetch a file", response_class=Response, responses=_RESPONSES)
async def fetch(file: str, request: Request, expires: str = "", signature: str = "") -> Response:
    """Return a file or a part of it (RFC 9110, section 14). Raises `Forbidden` and `FileNotFound`."""
    files: FileStore = request.app.state.files
    expires_at = files.verify(file, expires, signature)
    return await stored_files.respond(request, file, filename=file, max_age=expires_at - int(time.time()))
