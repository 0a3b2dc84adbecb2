"""Image requests: https://platform.openai.com/docs/api-reference/images

`width`, `height`, `steps` (also `step`, as DecentralGPT nodes write it), `guidance_scale`, `negative_prompt`, `seed`
and `strength` are not OpenAI's. Nodes send 0 and "" for what their callers left out.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from gateway.dialects.openai.wire.form_fields import parse_fields
from gateway.dialects.openai.wire.sampling import UnsupportedField
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http.forms import Form
from gateway.http.wire_model import WireModel
from gateway.operations.generate_image import Effort, OutputFormat

MAX_PROMPT_CHARACTERS = 32_000
"""Characters, OpenAI's own limit."""
MAX_JSON_VALUES = 5000
"""JSON values of a body."""
MAX_IMAGES = 16
"""OpenAI's own limit for one edit."""

_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "^(|auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"},
        {"type": "null"},
    ],
    "description": "WIDTHxHEIGHT, or `auto`.",
}
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_UNSUPPORTED_FIELDS = ("frame_count", "frame_duration_ms", "svg")
"""Fields of animated and vector images."""
_FILE_FIELDS = frozenset({"image", "images", "mask", "markup", *_UNSUPPORTED_FIELDS})
"""Fields that are files in a form, or not supported: a form documents them differently or not at all."""
_EFFORTS: dict[str, Effort] = {"low": "low", "high": "high", "hd": "high", "xhigh": "high", "max": "high"}


def _check_not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


Prompt = Annotated[
    str,
    Field(max_length=MAX_PROMPT_CHARACTERS),
    AfterValidator(_check_not_blank),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_PROMPT_CHARACTERS, "pattern": r"\S"}),
]
Count = Annotated[int | None, Field(ge=0, lt=2**31)]
Amount = Annotated[float | None, Field(ge=0, le=100)]

_REFERENCE: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1, "description": "An http(s) URL, a data URL, or base64."},
        {"type": "object", "properties": {"image_url": {"type": "string"}}, "required": ["image_url"]},
    ]
}
ImageReference = Annotated[Any, WithJsonSchema(_REFERENCE)]
ImageReferences = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [*_REFERENCE["anyOf"], {"type": "array", "items": _REFERENCE, "minItems": 1, "maxItems": 16}]}
    ),
]


class ImageFields(WireModel):
    """Fields of every image request. A form has the same fields, as texts and files."""

    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=10)] = None
    size: Annotated[str | None, WithJsonSchema(_SIZE_SCHEMA)] = None
    width: Count = None
    height: Count = None
    response_format: Literal["url", "b64_json", ""] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int | None, Field(ge=0, le=100)] = None
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd", ""] | None = None
    style: Literal["vivid", "natural", ""] | None = None
    background: Literal["auto", "opaque", "transparent", ""] | None = None
    stream: bool | None = None
    partial_images: Annotated[int | None, Field(ge=0, le=3)] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    steps: Count = None
    step: Count = None
    guidance_scale: Amount = None
    negative_prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS)] = None
    user: str | None = None
    # OpenAI's fields of animated and vector images: known and not supported.
    frame_count: UnsupportedField = None
    frame_duration_ms: UnsupportedField = None
    svg: UnsupportedField = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        return parse_fields(body, cls.model_fields) if isinstance(body, Form) else _without_zeros(body)

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `GenerateImage`. Raises `InvalidRequest` and `UnsupportedOption`."""
        if self.partial_images and not self.stream:
            raise InvalidRequest("'partial_images' is only allowed when 'stream' is true.", param="partial_images")
        if self.stream and self.response_format == "url":
            raise InvalidRequest(
                "A stream contains its images: set 'response_format' to 'b64_json', or omit it.",
                param="response_format",
            )
        for name in _UNSUPPORTED_FIELDS:
            if getattr(self, name) not in (None, ""):
                raise UnsupportedOption(
                    f"'{name}' is not supported: the models generate single raster images.", param=name
                )
        if self.background == "transparent":
            raise UnsupportedOption("No model supports transparent backgrounds.", param="background")
        output_format = self.output_format or "png"
        quality = encoding_quality(output_format, self.output_compression)
        width, height = self._size()
        return {
            "n": self.n or 1,
            "width": width,
            "height": height,
            "steps": self.steps or self.step or None,
            "effort": _EFFORTS.get(self.quality or "", "medium"),
            "guidance_scale": self.guidance_scale,
            "seed": self.seed,
            "negative_prompt": self.negative_prompt or None,
            "output_format": output_format,
            "quality": quality,
            "partial_images": self.partial_images or 0,
        }

    def _size(self) -> tuple[int | None, int | None]:
        sides = self.width or None, self.height or None
        if not self.size or self.size == "auto":
            return sides
        match = _SIZE.fullmatch(self.size)
        if not match:
            raise InvalidRequest(
                "Invalid value for 'size': expected WIDTHxHEIGHT in pixels, 512x512 for example, or 'auto'.",
                param="size",
            )
        size = int(match[1]), int(match[2])
        if any(side and side != given for side, given in zip(sides, size, strict=True)):
            raise InvalidRequest("'size' contradicts 'width' or 'height'.", param="size")
        return size


class CreateImageRequest(ImageFields):
    """The body of an image generation. With `image` it is an edit: DecentralGPT nodes have one route for both."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "shapes", "prompt": "a small red circle", "n": 2, "size": "128x128"}]}
    )

    prompt: Prompt
    image: ImageReferences = None
    images: ImageReferences = None
    mask: ImageReference = None
    strength: Annotated[float | None, Field(gt=0, le=1)] = None
    markup: ImageReference = None  # OpenAI's marks on an image: known and not supported

    @property
    def is_edit(self) -> bool:
        """True for a request with input images."""
        return any(given is not None for given in (self.image, self.images, self.mask))

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments, as `ImageFields.options` does, and refuse `markup`."""
        if self.markup not in (None, ""):
            raise UnsupportedOption("No model supports 'markup'.", param="markup")
        return super().options()


class CreateImageEditRequest(CreateImageRequest):
    """The body of an edit. `image` or `images` has the images; only what is transparent in `mask` changes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "shapes", "prompt": "a blue star", "image": "https://example.com/circle.png", "n": 1}
            ],
            "anyOf": [{"required": ["image"]}, {"required": ["images"]}],
        }
    )


class CreateImageVariationRequest(ImageFields):
    """The body of a request for variations of an image."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "shapes", "image": "https://example.com/circle.png", "n": 2}]}
    )

    image: ImageReference
    strength: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With more, little of the image remains, as no prompt guides the model."""


def encoding_quality(output_format: OutputFormat, compression: int | None) -> int | None:
    """Return the quality that `output_compression` stands for, 0 to 100; None is the model's. Raises `InvalidRequest`.

    PNG is lossless: 100 stands for that, and other numbers are refused.
    """
    if compression is None or output_format != "png":
        return compression
    if compression != 100:
        raise InvalidRequest(
            "'output_compression' requires the output format 'jpeg' or 'webp'; PNG is lossless.",
            param="output_compression",
        )
    return None


def form_request_body(schema: type[ImageFields], *files: str) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form. `files` are the names of image fields."""
    properties = schema.model_json_schema()["properties"]
    images: dict[str, Any] = {name: {"type": "string", "format": "binary"} for name in files}
    if "image" in files and "images" in properties:
        images["image[]"] = {"type": "array", "items": {"type": "string", "format": "binary"}}
    others = {name: found for name, found in properties.items() if name not in _FILE_FIELDS}
    required = ["prompt"] if "prompt" in properties else []
    return {
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": {**images, **others}, "required": required}
                }
            }
        }
    }


def _without_zeros(body: Any) -> Any:
    """Drop an `n` of 0 where other fields are zero too: DecentralGPT nodes send zeros for fields left out."""
    zeros = {"size": "", "width": 0, "height": 0, "response_format": ""}
    if isinstance(body, dict) and body.get("n") == 0 and any(body.get(name) == zero for name, zero in zeros.items()):
        return {name: value for name, value in body.items() if name != "n"}
    return body
