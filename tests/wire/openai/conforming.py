"""Whether an answer is exactly what the document says: no field that it does not name, and no other type."""

import json
from typing import Any

from pydantic import BaseModel

from gateway.dialects.openai import answers, images_answers
from gateway.dialects.vocabulary import documented

WHOLE: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": answers.CreateChatCompletionResponse,
    "/v1/completions": answers.CreateCompletionResponse,
    "/v1/embeddings": answers.CreateEmbeddingResponse,
    "/v1/images/generations": images_answers.ImagesResponse,
    "/v1/images/edits": images_answers.ImagesResponse,
    "/v1/images/variations": images_answers.ImagesResponse,
    "/v1/models": answers.ListModelsResponse,
    "/v1/models/{model_id}": answers.RetrieveModelResponse,
}
NAMED = {
    "image_generation.partial_image": images_answers.ImageGenPartialImageEvent,
    "image_generation.completed": images_answers.ImageGenCompletedEvent,
    "image_edit.partial_image": images_answers.ImageEditPartialImageEvent,
    "image_edit.completed": images_answers.ImageEditCompletedEvent,
}
EVENTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": answers.CreateChatCompletionStreamResponse,
    "/v1/completions": answers.CreateCompletionStreamResponse,
}


def exactly(model: type[BaseModel], body: str | bytes) -> Any:
    """Read a body as `model`. Raises `ValidationError` where it is more, or less, or something else."""
    return model.model_validate_json(body, strict=True, extra="forbid")


def conforms(path: str, status: int, content_type: str, body: bytes) -> None:
    """Check the answer of a route of this dialect; others are left alone."""
    if not path.startswith("/v1"):
        return
    if status != 200:
        assert content_type == "application/json"
        exactly(documented.ErrorResponse, body)
    elif content_type.startswith("text/event-stream"):
        stream_conforms(path, body)
    else:
        assert content_type == "application/json"
        exactly(WHOLE[path], body)


def stream_conforms(path: str, body: bytes) -> None:
    """Check each event, and that the stream ends as one that went well, or with the failure."""
    *blocks, last = body.decode().removesuffix("\n\n").split("\n\n")
    for block in blocks:
        name, line, data = block.rpartition("\n")
        assert bool(line) == (path not in EVENTS)
        exactly(NAMED[name.removeprefix("event: ")] if line else EVENTS[path], data.removeprefix("data: "))
    last = last.removeprefix("data: ")
    if last != "[DONE]":
        exactly(documented.ErrorResponse, json.dumps(json.loads(last)))
