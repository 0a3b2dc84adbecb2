"""Every parameter of the installed `openai` package is supported, refused by name, or listed as ignored."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import chat as official
from openai.types import (
    completion_create_params,
    embedding_create_params,
    image_create_variation_params,
    image_edit_params,
    image_generate_params,
    video_create_params,
    video_edit_params,
    video_extend_params,
    video_remix_params,
)
from openai.types.audio import SpeechCreateParams, transcription_create_params, translation_create_params
from openai.types.chat import chat_completion_assistant_message_param as official_assistant
from openai.types.chat import chat_completion_content_part_image_param as official_image
from openai.types.chat import chat_completion_content_part_input_audio_param as official_audio
from openai.types.chat import chat_completion_content_part_param as official_parts
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.shared_params import FunctionDefinition, ResponseFormatJSONSchema
from openai.types.shared_params.response_format_json_schema import JSONSchema

from gateway.dialects.openai.completions import CreateCompletionRequest
from gateway.dialects.openai.embeddings import CreateEmbeddingRequest
from gateway.dialects.openai.wire import (
    audio_chat,
    images,
    messages,
    sampling,
    structured_outputs,
    tools,
    transcriptions,
    videos,
)
from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.dialects.openai.wire.speech import CreateSpeechRequest
from gateway.http.wire_model import WireModel

DOCUMENT = (Path(__file__).parents[3] / "docs" / "dialects.md").read_text(encoding="utf-8")
_IGNORED = DOCUMENT.split("\n### Ignored parameters\n")[1].split("\n### ")[0]

ROUTES: dict[str, tuple[Any, type[WireModel]]] = {
    "chat": (chat_create_params.CompletionCreateParamsStreaming, CreateChatCompletionRequest),
    "completions": (completion_create_params.CompletionCreateParamsStreaming, CreateCompletionRequest),
    "embeddings": (embedding_create_params.EmbeddingCreateParams, CreateEmbeddingRequest),
    "audio/speech": (SpeechCreateParams, CreateSpeechRequest),
    "audio/transcriptions": (
        transcription_create_params.TranscriptionCreateParamsStreaming,
        transcriptions.CreateTranscriptionRequest,
    ),
    "audio/translations": (translation_create_params.TranslationCreateParams, transcriptions.CreateTranslationRequest),
    "images/generations": (image_generate_params.ImageGenerateParamsStreaming, images.CreateImageRequest),
    "images/edits": (image_edit_params.ImageEditParamsStreaming, images.CreateImageEditRequest),
    "images/variations": (
        image_create_variation_params.ImageCreateVariationParams,
        images.CreateImageVariationRequest,
    ),
    "videos": (video_create_params.VideoCreateParams, videos.CreateVideoRequest),
    "videos/edits": (video_edit_params.VideoEditParams, videos.EditVideoRequest),
    "videos/extensions": (video_extend_params.VideoExtendParams, videos.ExtendVideoRequest),
    "videos/remix": (video_remix_params.VideoRemixParams, videos.RemixVideoRequest),
}
NESTED: dict[str, tuple[Any, Any]] = {
    "stream_options": (official.ChatCompletionStreamOptionsParam, sampling.StreamOptions),
    "messages": (official.ChatCompletionMessageParam, messages.Message),
    "messages.content": (official.ChatCompletionContentPartParam, messages.ContentPart),
    "messages.content of the assistant": (official.ChatCompletionContentPartRefusalParam, messages.ContentPart),
    "image_url": (official_image.ImageURL, messages.ImageURL),
    "input_audio": (official_audio.InputAudio, messages.InputAudio),
    "file": (official_parts.FileFile, messages.File),
    "messages.audio": (official_assistant.Audio, messages.SpokenAnswer),
    "audio": (official.ChatCompletionAudioParam, audio_chat.AudioOutput),
    "messages.tool_calls": (official.ChatCompletionMessageFunctionToolCallParam, tools.WireToolCall),
    "tools": (official.ChatCompletionFunctionToolParam, tools.ToolDefinition),
    "tools.function": (FunctionDefinition, tools.FunctionDefinition),
    "chunking_strategy": (transcription_create_params.ChunkingStrategyVadConfig, transcriptions.VadConfig),
    "response_format": (ResponseFormatJSONSchema, structured_outputs.ResponseFormat),
    "response_format.json_schema": (JSONSchema, structured_outputs.JSONSchema),
}


def parameters(kind: Any) -> Iterator[str]:
    """Return the members of an object type, or of each object type of a union."""
    for one in typing.get_args(kind) or (kind,):
        yield from typing.get_type_hints(one)


def known(wire: Any) -> set[str]:
    """Return the fields of a model, or of each model of a union."""
    if not hasattr(wire, "model_fields"):
        return set().union(*(known(one) for one in typing.get_args(wire)))
    return {field.alias or name for name, field in wire.model_fields.items()}


def named(name: str, text: str, place: str = "") -> bool:
    """Return whether `text` has a parameter's name in code font, alone or at the end of a path."""
    where = rf"(?:{re.escape(place.split('.')[0])}\.)?" if place else ""
    return bool(re.search(rf"`{where}{re.escape(name)}(?:\.[a-z_]+)?`", text))


def check(what: str, kind: Any, wire: Any) -> None:
    fields = known(wire)
    dropped = [
        name for name in dict.fromkeys(parameters(kind)) if name not in fields and not named(name, _IGNORED, what)
    ]
    assert not dropped, (
        f"openai {openai.__version__} has parameters of {what} that nobody has decided about: {', '.join(dropped)}. "
        f"Add each to {getattr(wire, '__name__', what)}, and to 'Unsupported parameters' of docs/dialects.md "
        "where a value that asks for something is refused; or, where dropping it changes no answer, name it in "
        "'Ignored parameters' there."
    )


@pytest.mark.parametrize("route", ROUTES)
def test_every_parameter_of_a_route_is_decided(route: str) -> None:
    kind, wire = ROUTES[route]
    check(route, kind, wire)
    unsaid = [name for name in parameters(kind) if not named(name, DOCUMENT)]
    unsaid = [name for name in unsaid if name not in ("model", "messages")]
    assert not unsaid, f"docs/dialects.md does not say what becomes of {', '.join(unsaid)} of {route}."


@pytest.mark.parametrize("place", NESTED)
def test_every_nested_parameter_of_a_chat_is_decided(place: str) -> None:
    check(place, *NESTED[place])


def test_undecided_parameters_are_noticed() -> None:
    class Newer(typing.TypedDict, total=False):
        model: str
        made_up_tomorrow: bool

    with pytest.raises(AssertionError, match="made_up_tomorrow"):
        check("chat", Newer, CreateChatCompletionRequest)
