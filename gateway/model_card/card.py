"""The model card: a model's tensors and parameters, typed. It alone reads the strings of `config.parameters`, with
`gateway.model_card.speech` for those of speech.

docs/architecture.md lists the parameters. Discovery parses the card once; requests read its fields.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from gateway.model_card.image_limits import DEFAULT_MAX_IMAGES, ImageLimits, Size
from gateway.model_card.speech import SpeechCard, parse_speech
from gateway.model_card.transcription_limits import TranscriptionLimits, parse_transcription
from gateway.model_card.upscaling_limits import UpscalingLimits, parse_upscaling
from gateway.model_card.video_limits import VideoLimits, parse_video
from gateway.operations.chat import Chat
from gateway.operations.edit_image import EditImage
from gateway.operations.generate_image import GenerateImage
from gateway.operations.generate_video import GenerateVideo
from gateway.operations.speak import Speak
from gateway.operations.transcribe import Transcribe
from gateway.operations.upscale_image import UpscaleImage
from gateway.triton.model_config import ModelConfig

Parameters: TypeAlias = Mapping[str, str]
"""Parameters of `config.pbtxt`: each value is a string, numbers and lists as JSON."""

TextMode: TypeAlias = Literal["cumulative", "delta"]
"""`cumulative`: each response has the whole text so far. `delta`: each response has only the new text."""

StructuredOutputsOption: TypeAlias = Literal["structured_outputs", "guided_decoding"]
"""Triton's vLLM backend's name for a structured output: since 25.11, and up to 25.10."""

ADD_BOS_PARAMETER = "add_bos_token"

_TRUE_WORDS = frozenset({"true", "yes", "1", "t"})
"""Values that mean true for models of TensorRT-LLM (tensorrt_llm_bls/1/model.py)."""
_FALSE_WORDS = frozenset({"false", "no", "0", "f", "n"})
"""Values that mean false for models of TensorRT-LLM (inflight_batcher_llm/preprocessing/1/model.py)."""

_NO_SPEECH = SpeechCard()
_IMAGE_OPERATIONS = frozenset({GenerateImage.operation, EditImage.operation, GenerateVideo.operation})
"""Operations whose models declare sizes and steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextCard:
    """The parameters of a text model. Instances are hashed by identity, so that caches may use them as keys."""

    modalities: frozenset[str] = frozenset({"text"})
    """Kinds of content that a message may have: `text`, `image`."""
    chat_template: str | None = None
    """Jinja source."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by the names that the template uses, `bos_token` for example."""
    control_tokens: tuple[str, ...] | None = None
    """All special tokens of the tokenizer; None: unknown."""
    recognizes_special_tokens: bool = False
    """True: special tokens in messages act as such. False: they are plain text."""
    add_bos_token: bool = False
    """True: the backend puts `bos_token` before each prompt."""
    tool_call_parser: str | None = None
    """A name of `gateway.prompting.tool_calls.PARSERS`; None: the template shows it."""
    reasoning_parser: str | None = None
    """A name of `gateway.prompting.reasoning.REASONING_PARSERS`; None: answers have no reasoning."""
    context_length: int | None = None
    """Tokens of prompt and answer together."""
    max_tokens: int | None = None
    """Tokens of an answer where the caller sets no limit; None: `context_length`."""
    text_mode: TextMode | None = None
    """The form of the texts in responses; None: unknown, detected from the responses."""
    accumulates_tokens: bool = False
    """TensorRT-LLM: the model decodes all tokens so far for each response."""
    structured_outputs_option: StructuredOutputsOption | None = None
    """None: the tensors show it."""
    adapters: tuple[str, ...] = ()
    """The LoRA adapters that a request may name. Each is offered as a model of its own (`ModelCard.adapter`)."""

    @property
    def supports_images(self) -> bool:
        """True if messages may contain images."""
        return "image" in self.modalities

    @property
    def default_max_tokens(self) -> int | None:
        """The most tokens of an answer where the caller sets no limit; None: unknown."""
        return self.max_tokens or self.context_length


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """The description of a model. `config` has its tensors, the others the parameters of each modality."""

    config: ModelConfig
    name: str
    """The name that clients use."""
    signature: str
    """A name of `gateway.signatures.registry.SIGNATURES`."""
    operations: frozenset[str]
    owned_by: str
    created: int
    """Seconds since 1970; 0: unknown."""
    text: TextCard
    image: ImageLimits
    transcription: TranscriptionLimits = field(default_factory=TranscriptionLimits)
    speech: SpeechCard = _NO_SPEECH
    video: VideoLimits = field(default_factory=VideoLimits)
    upscaling: UpscalingLimits = field(default_factory=UpscalingLimits)
    adapter: str | None = None
    """The LoRA adapter that requests to this model use; None: it is the model itself."""
    base_name: str | None = None
    """The clients' name of the model that the adapter belongs to; None where there is no adapter."""

    def adapter_cards(self) -> "list[ModelCard]":
        """Return a card for each LoRA adapter of this model. It has the adapter's name, and else the same content.

        Raises `ValueError` where a name is empty, is there twice, or is that of the model.
        """
        names = (self.name, *self.text.adapters)
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"adapters {list(self.text.adapters)} of {self.name!r}: each must have a name of its own")
        return [replace(self, name=name, adapter=name, base_name=self.name) for name in self.text.adapters]

    def has_input(self, name: str) -> bool:
        """Return whether the model declares an input tensor of this name."""
        return name in self.config.inputs


def parse(config: ModelConfig) -> ModelCard:
    """Parse the parameters of a model.

    Raises `KeyError` if `signature` or `operations` is missing, and `ValueError` or `TypeError` for an invalid value.
    """
    parameters = config.parameters
    operations = frozenset(json.loads(parameters["operations"]))
    text = parse_text(parameters)
    if Chat.operation in operations and text.chat_template is None:
        raise ValueError("it offers chat but has no chat_template")
    return ModelCard(
        config=config,
        name=parameters.get("served_name", config.name),
        signature=parameters["signature"],
        operations=operations,
        owned_by=parameters.get("owned_by", "tritonic"),
        created=int(parameters.get("created", 0)),
        text=text,
        image=parse_image(parameters) if operations & _IMAGE_OPERATIONS else ImageLimits(),
        video=parse_video(parameters) if GenerateVideo.operation in operations else VideoLimits(),
        upscaling=parse_upscaling(parameters) if UpscaleImage.operation in operations else UpscalingLimits(),
        speech=parse_speech(parameters) if Speak.operation in operations else _NO_SPEECH,
        transcription=(
            parse_transcription(parameters) if Transcribe.operation in operations else TranscriptionLimits()
        ),
    )


def parse_text(parameters: Parameters) -> TextCard:
    """Parse the parameters of texts and chats. Raises `ValueError` for an invalid value."""
    special_tokens = json.loads(parameters.get("special_tokens", "{}"))
    if not isinstance(special_tokens, dict) or not all(isinstance(token, str) for token in special_tokens.values()):
        raise ValueError("special_tokens is not an object of strings")
    control_tokens = _strings(parameters, "control_tokens")
    modalities = _strings(parameters, "modalities")
    text_modes: tuple[TextMode, ...] = ("cumulative", "delta")
    structure_options: tuple[StructuredOutputsOption, ...] = ("structured_outputs", "guided_decoding")
    return TextCard(
        modalities=frozenset({"text"} if modalities is None else modalities),
        chat_template=parameters.get("chat_template"),
        special_tokens=special_tokens,
        control_tokens=control_tokens,
        recognizes_special_tokens=_word(parameters, "special_tokens_in_content", ("text", "recognised"))
        == "recognised",
        add_bos_token=_word(parameters, ADD_BOS_PARAMETER, ("true", "false")) == "true",
        tool_call_parser=parameters.get("tool_call_parser") or None,
        reasoning_parser=parameters.get("reasoning_parser") or None,
        context_length=_positive_int(parameters, "context_length"),
        max_tokens=_positive_int(parameters, "max_tokens"),
        text_mode=_word(parameters, "text", text_modes),
        accumulates_tokens=parameters.get("accumulate_tokens", "").lower() in _TRUE_WORDS,
        structured_outputs_option=_word(parameters, "structured_outputs", structure_options),
        adapters=_strings(parameters, "adapters") or (),
    )


def parse_image(parameters: Parameters) -> ImageLimits:
    """Parse the parameters of generated images. Raises `ValueError` or `TypeError` for an invalid value.

    A size is `[width, height]`, or one number for both.
    """
    values = {name: json.loads(parameters[name]) for name in _IMAGE_PARAMETERS if name in parameters}
    limits = ImageLimits(
        sizes=tuple(_size(size) for size in values.get("sizes", ())),
        size_multiple=_above_zero(values.get("size_multiple", 1)),
        min_size=_size(values["min_size"]) if "min_size" in values else None,
        max_size=_size(values["max_size"]) if "max_size" in values else None,
        default_size=_size(values["default_size"]) if "default_size" in values else None,
        default_steps=_above_zero(values["default_steps"]) if "default_steps" in values else None,
        max_steps=_above_zero(values["max_steps"]) if "max_steps" in values else None,
        max_images=_above_zero(values.get("max_images", DEFAULT_MAX_IMAGES)),
    )
    if limits.default_size and not limits.supports_size(*limits.default_size):
        raise ValueError(f"default_size {limits.default_size} is not a supported size")
    return limits


_IMAGE_PARAMETERS = (
    *("sizes", "size_multiple", "min_size", "max_size", "default_size"),
    *("default_steps", "max_steps", "max_images"),
)


def is_component(config: ModelConfig) -> bool:
    """Return whether the model is a part of another one, which serves it."""
    return "component" in config.parameters


def tokenizer_adds_bos(parameters: Parameters) -> bool | None:
    """Return whether the checkpoint's tokenizer puts `bos_token` before a text; None: unknown."""
    return parameters["tokenizer_adds_bos"] == "true" if "tokenizer_adds_bos" in parameters else None


def tokenizes_without_special_tokens(preprocessing: ModelConfig) -> bool:
    """Return whether a preprocessing step of TensorRT-LLM is configured to add no special tokens to a prompt."""
    return preprocessing.parameters.get("add_special_tokens", "").lower() in _FALSE_WORDS


def _strings(parameters: Parameters, name: str) -> tuple[str, ...] | None:
    if name not in parameters:
        return None
    value = json.loads(parameters[name])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{name} is not a list of strings")
    return tuple(value)


def _word(parameters: Parameters, name: str, words: tuple[Any, ...]) -> Any:
    value = parameters.get(name)
    if value is not None and value not in words:
        raise ValueError(f"{name} is {value!r}; expected {words[0]!r} or {words[1]!r}")
    return value


def _positive_int(parameters: Parameters, name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if not value.isdigit() or not int(value):
        raise ValueError(f"{name} is {value!r}; expected a positive integer")
    return int(value)


def _size(value: Any) -> Size:
    width, height = value if isinstance(value, list) else (value, value)
    return _above_zero(width), _above_zero(height)


def _above_zero(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is not a positive integer")
    return value
