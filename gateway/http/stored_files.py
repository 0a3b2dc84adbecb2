"""Responses with stored files: whole or in part, with ETag, Range and conditions (RFC 9110)."""

import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import format_datetime

from fastapi import Request
from starlette.responses import Response

from gateway.files.content_types import content_type
from gateway.files.file_store import FileStore, StoredFile
from gateway.http import delivery

_RANGE_HEADER = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


async def respond(request: Request, file: str, *, filename: str, max_age: int, disposition: str = "inline") -> Response:
    """Return a stored file or a part of it (RFC 9110, section 14) to GET, and its headers to HEAD.

    `filename` is the name for clients that save it, `max_age` the seconds for which they may cache it. Raises
    `FileNotFound`, and `Overloaded` when the store does not respond.
    """
    files: FileStore = request.app.state.files
    part = None
    requested = _RANGE_HEADER.fullmatch(request.headers.get("range", ""))
    known_etags = request.headers.get("if-none-match", "")
    fixed = {
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={max(0, max_age)}",
        "Content-Disposition": f'{disposition}; filename="{filename}"',
    }
    # `get` makes the store send the file. If the content may not be needed, `head` is called first.
    found = await files.head(file) if request.method == "HEAD" or known_etags or requested else None
    if found:
        if known_etags.strip() == "*" or (found.etag and found.etag in known_etags):
            return Response(status_code=304, headers=_headers(file, found, fixed))
        if requested and (if_range := request.headers.get("if-range")) and not _is_unchanged(if_range, found):
            requested = None  # a task that is executed again replaces its files
        if requested:
            part = _byte_range(requested, found.size)
            if part is None:
                return Response(status_code=416, headers={"Content-Range": f"bytes */{found.size}"})
    if found is None or request.method != "HEAD":
        found = await files.get(file, part)
    elif part:
        found = replace(found, start=part[0], end=part[1])
    headers = _headers(file, found, fixed)
    headers["Content-Length"] = str(found.end - found.start)
    if part:
        headers["Content-Range"] = f"bytes {found.start}-{found.end - 1}/{found.size}"
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=found.content_type)
    return await delivery.raw(request, found.chunks, found.content_type, headers=headers, status=status)


def _headers(file: str, found: StoredFile, fixed: Mapping[str, str]) -> dict[str, str]:
    headers = {
        **fixed,
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Type": content_type(file),
        "Last-Modified": format_datetime(found.modified, usegmt=True),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return headers | ({"ETag": found.etag} if found.etag else {})


def _is_unchanged(if_range: str, found: StoredFile) -> bool:
    """Return whether `If-Range` matches the file, so that a range may be served (RFC 9110, section 13.1.5)."""
    return if_range in (found.etag, format_datetime(found.modified, usegmt=True))


def _byte_range(requested: re.Match[str], size: int) -> tuple[int, int] | None:
    """Return the offsets of the first byte and of the byte after the last; None if the file has no requested byte."""
    first, last, suffix = requested.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    return (start, end) if start < end else None
