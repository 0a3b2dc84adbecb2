"""Video requests: https://platform.openai.com/docs/api-reference/videos

`negative_prompt`, `seed`, `steps`, `guidance_scale`, `fps`, `strength`, `quality` and `webhook_url` are not OpenAI's,
nor is a video as `input_reference`. A form has the same fields as JSON, as texts and files; of an object, `video[id]`.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from gateway.dialects.openai.wire.form_fields import holds_numbers, parse_number
from gateway.dialects.openai.wire.images import MAX_PROMPT_CHARACTERS, Amount, Count, Prompt
from gateway.errors import InvalidRequest
from gateway.http.forms import Form
from gateway.http.wire_model import WireModel
from gateway.model_card.card import ModelCard
from gateway.operations.generate_video import GenerateVideo

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_SECONDS = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?")
_MIN_SECONDS = 1e-6
"""The shortest length that a text can say."""
_NESTED = re.compile(r"([a-z_]{1,64})\[([a-z_]{1,64})\]")
"""The name of a form's field that is a field of an object."""


def _parse_seconds(value: Any) -> Any:
    """Return the number of a text, as OpenAI's clients send it, or `value` itself: validation then refuses it."""
    if isinstance(value, str):
        if not _SECONDS.fullmatch(value):
            raise ValueError("expected a number of seconds, '4' for example")
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not _MIN_SECONDS <= value < 10**7:
        raise ValueError("expected a number of seconds above 0")
    return round(value, 6)


Seconds = Annotated[
    float | None,
    BeforeValidator(_parse_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]{1,7}([.][0-9]{1,6})?$"},
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "null"},
            ],
            "description": "The length of the video, in seconds.",
        }
    ),
]
_Size = Annotated[
    str | None,
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": "^(|auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"}, {"type": "null"}],
            "description": "WIDTHxHEIGHT, or `auto`.",
        }
    ),
]
_FILE = {"type": "string", "minLength": 1, "description": "An http(s) URL, a data URL, or base64."}
_PICTURE = {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]}
_REFERENCE: dict[str, Any] = {"anyOf": [_FILE, _PICTURE]}
Reference = Annotated[
    Any,
    WithJsonSchema({"anyOf": [*_REFERENCE["anyOf"], {"type": "array", "items": _REFERENCE, "maxItems": 16}]}),
]
SourceVideo = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [_FILE, {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}]}
    ),
]


class VideoFields(WireModel):
    """Fields of every video request."""

    prompt: Prompt
    model: str | None = None
    negative_prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    steps: Count = None
    guidance_scale: Amount = None
    strength: Annotated[float | None, Field(gt=0, le=1)] = None
    quality: Annotated[int | None, Field(ge=0, le=100)] = None
    seconds: Seconds = None
    size: _Size = None
    fps: Annotated[int | None, Field(ge=1, le=1000)] = None
    webhook_url: Annotated[
        str | None,
        Field(description="URL that is called when the video has ended, in the format of Standard Webhooks."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        """Convert the texts of a form to the types of their fields, and drop empty ones."""
        if not isinstance(body, Form):
            return body
        read: dict[str, Any] = {}
        objects: dict[str, dict[str, Any]] = {}
        for name, value in body.items():
            if value == "":
                continue
            base, bracket, rest = name.partition("[")
            if bracket and base in cls.model_fields:
                # What no object has is kept: it is refused, and not ignored.
                nested = _NESTED.fullmatch(name)
                objects.setdefault(base, {})[nested[2] if nested else f"[{rest}"] = value
            elif name in cls.model_fields and holds_numbers(cls.model_fields[name].annotation) and name != "seconds":
                read[name] = parse_number(value)
            else:
                read[name] = value
        for name, found in objects.items():
            others = read.get(name, [])
            read[name] = [*(others if isinstance(others, list) else [others]), found] if name in read else found
        return read

    def parse(self, model: str, card: ModelCard, *, nearest_size: bool = False) -> GenerateVideo:
        """Return the operation for `model`, without references. Its size and length are those of the model's `card`
        where the request has none.

        With `nearest_size`, a size that the model does not generate is replaced by the nearest one. Raises
        `InvalidRequest` for what is no size; the limits of the model are not checked.
        """
        width, height = self._size(card)
        if nearest_size and not card.image.supports_size(width, height):
            width, height = card.image.nearest_size(width, height)
        limits = card.video
        fps = self.fps or limits.default_fps
        count = limits.default_num_frames if self.seconds is None else limits.num_frames(self.seconds, fps)
        seconds = limits.seconds(count, fps) if self.seconds is None else self.seconds
        return GenerateVideo(
            model=model,
            width=width,
            height=height,
            num_frames=min(count, 2**31 - 1),
            fps=fps,
            seconds=seconds,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt or None,
            steps=self.steps or None,
            guidance_scale=self.guidance_scale,
            strength=self.strength,
            seed=self.seed,
            quality=self.quality,
        )

    def _size(self, card: ModelCard) -> tuple[int, int]:
        if not self.size or self.size == "auto":
            assert card.image.default_size is not None  # the card of a video model has one
            return card.image.default_size
        match = _SIZE.fullmatch(self.size)
        if not match:
            raise InvalidRequest(
                "Invalid value for 'size': expected WIDTHxHEIGHT in pixels, 1280x720 for example, or 'auto'.",
                param="size",
            )
        return int(match[1]), int(match[2])


class CreateVideoRequest(VideoFields):
    """The body of a video generation. `input_reference` is a picture, the first frame, or a video to change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "moving-shapes", "prompt": "a red circle moves to the left", "seconds": "2"}]
        }
    )

    input_reference: Reference = None


class EditVideoRequest(VideoFields):
    """The body of an edit of a video: one of this service by its id, or a file."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "a blue circle", "video": {"id": "task_4f1c2a7d9e8b4c6fa0d3e5b7c9a1f2e4"}}]
        }
    )

    video: SourceVideo


class ExtendVideoRequest(EditVideoRequest):
    """The body of a request that continues a video, for `seconds`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "it turns", "seconds": "2", "video": {"id": "task_4f1c2a7d9e8b4c6fa0d3e5b7c9a1f2e4"}}
            ]
        }
    )

    seconds: Annotated[float, *Seconds.__metadata__]


class RemixVideoRequest(VideoFields):
    """The body of a remix: a new prompt for a video of this service. The other fields are by default those of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a blue circle moves to the left"}]})


def form_request_body(schema: type[VideoFields], *files: str) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form. `files` are the names of fields with a file."""
    described = schema.model_json_schema()
    properties = described["properties"] | {name: {"type": "string", "format": "binary"} for name in files}
    form = {"type": "object", "properties": properties, "required": described["required"]}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": form}}}}
