"""The messages of a chat: https://platform.openai.com/docs/api-reference/chat/create#chat_create-messages"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from gateway.dialects.openai.wire.tools import FunctionCall, WireToolCall
from gateway.http.wire_model import UNION_TAG, WireModel


class ImageURL(WireModel):
    """An http(s) URL or a data URL."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class InputAudio(WireModel):
    """Audio in base64 or a data URL."""

    data: str
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "aac", "webm"]


class File(WireModel):
    """A document: an http(s) URL, a data URL, or base64."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class SpokenAnswer(WireModel):
    """An earlier answer with audio, by the id of the audio."""

    id: Annotated[str, Field(max_length=256)]


def _part_schema(name: str, value: str, *schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a content part: the field `name` is required and not null."""
    field = {"anyOf": list(schemas)} if len(schemas) > 1 else schemas[0]
    return {"properties": {"type": {"const": value}, name: field}, "required": ["type", name]}


class ContentPart(WireModel):
    """A part of a message's content. `type` tells which other field has the value."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                _part_schema("text", "text", {"type": "string"}),
                _part_schema("image_url", "image_url", {"type": "string"}, {"type": "object"}),
                _part_schema("input_audio", "input_audio", {"type": "object"}),
                _part_schema(
                    "file",
                    "file",
                    {
                        "type": "object",
                        "properties": {"file_data": {"type": "string", "minLength": 1}},
                        "required": ["file_data"],
                    },
                ),
                _part_schema("refusal", "refusal", {"type": "string"}),
            ]
        }
    )

    type: Literal["text", "image_url", "input_audio", "file", "video_url", "refusal"]
    text: str | None = None
    image_url: (
        Annotated[
            Annotated[str, Tag(UNION_TAG + "url")] | Annotated[ImageURL, Tag(UNION_TAG + "object")],
            Discriminator(lambda value: UNION_TAG + ("url" if isinstance(value, str) else "object")),
        ]
        | None
    ) = None
    input_audio: InputAudio | None = None
    file: File | None = None
    refusal: str | None = None


Content = Annotated[
    Annotated[str, Tag(UNION_TAG + "text")]
    | Annotated[list[ContentPart], Field(min_length=1, max_length=256), Tag(UNION_TAG + "parts")],
    Discriminator(lambda value: UNION_TAG + ("parts" if isinstance(value, list) else "text")),
]


class Message(WireModel):
    """One message of the conversation. Only those of the assistant and of functions may have no content."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"role": {"enum": ["assistant", "function"]}}},
                {"properties": {"content": {"type": ["string", "array"]}}, "required": ["content"]},
            ]
        }
    )

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Annotated[list[WireToolCall], Field(max_length=128)] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    audio: SpokenAnswer | None = None
