"""GET /files/{id}: what models produced, for whoever holds a signed address. No key is asked for."""

import re
import time
from dataclasses import replace
from email.utils import format_datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.files.file_store import FileStore, StoredFile, content_type
from gateway.http import delivery

router = APIRouter(tags=["Files"])

_RANGE_HEADER = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"image/png": _BINARY, "image/jpeg": _BINARY, "image/webp": _BINARY}},
    206: {"description": "The part of it that was asked for.", "content": {"image/png": _BINARY}},
    304: {"description": "The file that the caller has."},
    403: {"description": "The signature does not fit the address, or the address has expired."},
    404: {"description": "There is no such file any more."},
    416: {"description": "The file ends before the part that was asked for."},
    503: {"description": "The store does not answer."},
}


@router.head("/files/{file}", include_in_schema=False)
@router.get("/files/{file}", summary="Fetch a file", response_class=Response, responses=_RESPONSES)
async def fetch(file: str, request: Request, expires: str = "", signature: str = "") -> Response:
    """Return a file or a part of it (RFC 9110, section 14). Raises `Forbidden` and `FileGone`."""
    files: FileStore = request.app.state.files
    until = files.verify(file, expires, signature)
    part = None
    asked = _RANGE_HEADER.fullmatch(request.headers.get("range", ""))
    has = request.headers.get("if-none-match", "")
    # A store that is asked for a file begins to send it: where it may not be needed, the store is asked about it first.
    found = await files.head(file) if request.method == "HEAD" or has or asked else None
    if found:
        if has.strip() == "*" or (found.etag and found.etag in has):
            return Response(status_code=304, headers=_headers(file, found, until))
        if asked and (known := request.headers.get("if-range")) and not _is_unchanged(known, found):
            asked = None  # a task that is begun again replaces its pictures
        if asked:
            part = _byte_range(asked, found.size)
            if part is None:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{found.size}"})
    if found is None or request.method != "HEAD":
        found = await files.get(file, part)
    elif part:
        found = replace(found, start=part[0], end=part[1])
    headers = _headers(file, found, until)
    headers["Content-Length"] = str(found.end - found.start)
    if part:
        headers["Content-Range"] = f"bytes {found.start}-{found.end - 1}/{found.size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=found.content_type)
    return await delivery.raw(request, found.chunks, found.content_type, headers=headers, status=status)


def _headers(file: str, found: StoredFile, until: int) -> dict[str, str]:
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={max(0, until - int(time.time()))}",
        "Content-Disposition": f'inline; filename="{file}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Type": content_type(file),
        "Last-Modified": format_datetime(found.modified, usegmt=True),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return headers | ({"ETag": found.etag} if found.etag else {})


def _is_unchanged(known: str, found: StoredFile) -> bool:
    """Whether a file is the one of which a caller has a part (RFC 9110, section 13.1.5)."""
    return known in (found.etag, format_datetime(found.modified, usegmt=True))


def _byte_range(asked: re.Match[str], size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; None where the file has no byte of what was asked for."""
    first, last, suffix = asked.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    return (start, end) if start < end else None
