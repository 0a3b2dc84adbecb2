"""Validation of a platform's responses against the models of the OpenAPI document."""

from pydantic import TypeAdapter

from gateway.dialects.openai.wire.error_models import ErrorResponse
from gateway.dialects.platform import response_models
from tests.wire.openai.conformance import check_response as check_openai_response
from tests.wire.openai.conformance import validate_exactly

_AUDIO = "/{platform}/v1/audio/"
_CHAT = "/{platform}/v1/chat/completions"
_VIDEOS = "/{platform}/v1/videos"


def check_response(path: str, status: int, content_type: str, body: bytes) -> None:
    """Validate the response of a route of this dialect; ignore routes of others."""
    if not path.startswith("/{platform}/"):
        return
    if path.startswith(_AUDIO):
        check_openai_response(path.removeprefix("/{platform}"), status, content_type, body)
        return
    if content_type.startswith("text/event-stream"):
        *blocks, last = body.decode().removesuffix("\n\n").split("\n\n")
        for block in blocks:
            validate_exactly(response_models.ChatChunk, block.removeprefix("data: "))
        assert last == "data: [DONE]" or validate_exactly(ErrorResponse, last.removeprefix("data: "))
        return
    assert content_type == "application/json"
    if status != 200:
        validate_exactly(ErrorResponse, body)
    elif path == _CHAT:
        validate_exactly(response_models.ChatAnswer, body)
    elif path.startswith(_VIDEOS):
        videos = TypeAdapter(response_models.VideoTask | response_models.VideoTaskList)
        videos.validate_json(body, strict=True, extra="forbid")
    else:
        adapter = TypeAdapter(response_models.Images | response_models.ImageTask | response_models.ImageTaskList)
        adapter.validate_json(body, strict=True, extra="forbid")
