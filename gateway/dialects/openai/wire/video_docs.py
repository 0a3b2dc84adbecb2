"""The OpenAPI document of responses that have no model: files of videos, and headers of videos that are not ready."""

from pydantic import BaseModel

from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.http.openapi_responses import LOOKUP_FAILURES, Responses

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_POLL = {
    "openai-poll-after-ms": {
        "description": "Milliseconds after which to ask again, while the video is queued or in progress.",
        "schema": {"type": "integer"},
    }
}


def with_poll_header(documented: Responses) -> Responses:
    """Return `documented` with the header that `video_tasks.poll_headers` returns."""
    success = documented[200]
    return {**documented, 200: {**success, "headers": {**success["headers"], **_POLL}}}


def content_responses(not_found: str) -> Responses:
    """Return the `responses` of a route that returns the files of a video. `not_found` describes the status 404."""
    documented = OPENAI_DOCS.responses(BaseModel, (*LOOKUP_FAILURES, 502, 507), description="", example={})
    documented[400]["description"] = "The video is not ready, or has failed."
    documented[404]["description"] = not_found
    return {
        **documented,
        200: {
            "description": "The file.",
            "content": {"video/mp4": _BINARY, "image/webp": _BINARY, "image/jpeg": _BINARY},
        },
        206: {"description": "The requested part of the file.", "content": {"video/mp4": _BINARY}},
        304: {"description": "The client has this version of the file already."},
        416: {"description": "The file ends before the requested part."},
    }
