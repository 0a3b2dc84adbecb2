"""Validation of responses against the models of the OpenAPI document, with no other field and no other type."""

import json
from typing import Any

from pydantic import BaseModel, RootModel

from gateway.dialects.openai import images_responses, response_models, transcriptions, upscales, videos_responses
from gateway.dialects.openai.wire import speech_models, transcription_models
from gateway.dialects.openai.wire.error_models import ErrorResponse

RESPONSE_MODELS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": response_models.CreateChatCompletionResponse,
    "/v1/completions": response_models.CreateCompletionResponse,
    "/v1/embeddings": response_models.CreateEmbeddingResponse,
    "/v1/audio/voices": speech_models.ListVoicesResponse,
    "/v1/images/generations": images_responses.ImagesResponse,
    "/v1/images/edits": images_responses.ImagesResponse,
    "/v1/images/variations": images_responses.ImagesResponse,
    "/v1/images/upscales": upscales.UpscaleResponse,
    **dict.fromkeys(
        ("/v1/audio/transcriptions", "/v1/audio/translations"),
        RootModel[transcriptions.CreateTranscriptionResponse | transcriptions.CreateVerboseTranscriptionResponse],
    ),
    "/v1/videos": RootModel[videos_responses.CreateVideoResponse | videos_responses.ListVideosResponse],
    **dict.fromkeys(("/v1/videos/edits", "/v1/videos/extensions"), videos_responses.CreateVideoResponse),
    "/v1/models": response_models.ListModelsResponse,
    "/v1/models/{model_id}": response_models.RetrieveModelResponse,
}
NAMED_EVENT_MODELS: dict[str, type[BaseModel]] = {
    "speech.audio.delta": speech_models.SpeechAudioDeltaEvent,
    "speech.audio.done": speech_models.SpeechAudioDoneEvent,
    "transcript.text.delta": transcription_models.TranscriptTextDeltaEvent,
    "transcript.text.done": transcription_models.TranscriptTextDoneEvent,
    "image_generation.partial_image": images_responses.ImageGenPartialImageEvent,
    "image_generation.completed": images_responses.ImageGenCompletedEvent,
    "image_edit.partial_image": images_responses.ImageEditPartialImageEvent,
    "image_edit.completed": images_responses.ImageEditCompletedEvent,
}
EVENT_MODELS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": response_models.CreateChatCompletionStreamResponse,
    "/v1/completions": response_models.CreateCompletionStreamResponse,
}


def validate_exactly(model: type[BaseModel], body: str | bytes) -> Any:
    """Parse a body as `model`. Raises `ValidationError` for missing and additional fields, and for wrong types."""
    return model.model_validate_json(body, strict=True, extra="forbid")


def check_response(path: str, status: int, content_type: str, body: bytes) -> None:
    """Validate the response of a route of this dialect; ignore routes of others."""
    if not path.startswith("/v1"):
        return
    if status != 200:
        assert content_type == "application/json"
        validate_exactly(ErrorResponse, body)
    elif content_type.startswith("text/event-stream"):
        check_stream(path, body)
    elif path == "/v1/audio/speech":
        assert content_type.startswith("audio/") and body
    else:
        assert content_type == "application/json"
        validate_exactly(RESPONSE_MODELS[path], body)


def check_stream(path: str, body: bytes) -> None:
    """Validate each event of a stream, and its end: `[DONE]` or an error."""
    *blocks, last = body.decode().removesuffix("\n\n").split("\n\n")
    for block in blocks:
        name, line, data = block.rpartition("\n")
        assert bool(line) == (path not in EVENT_MODELS)
        validate_exactly(
            NAMED_EVENT_MODELS[name.removeprefix("event: ")] if line else EVENT_MODELS[path],
            data.removeprefix("data: "),
        )
    last = last.removeprefix("data: ")
    if last != "[DONE]":
        validate_exactly(ErrorResponse, json.dumps(json.loads(last)))
