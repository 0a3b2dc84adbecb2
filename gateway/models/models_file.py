"""The models file: describes models that do not describe themselves. TOML, read once at start.

[models."ensemble"]
served_name = "llama-3.1-8b-instruct"
tokenizer_config = "llama/tokenizer_config.json"
context_length = 8192
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from gateway.model_card.card import parse_text
from gateway.model_card.speech import parse_speech
from gateway.models.reference_voices import VoiceEntry, read_voices
from gateway.prompting import chat_prompt, tokenizer_files
from gateway.signatures.registry import RECOGNIZED_SIGNATURES

Parameters: TypeAlias = Mapping[str, str]

Descriptions: TypeAlias = Mapping[str, Parameters]
"""Parameters (docs/architecture.md) of each model, by Triton's name for it or by `host:port/name`."""

PositiveInt32 = Annotated[int, Field(gt=0, lt=2**31)]


def _check_signature(name: str) -> str:
    if name not in RECOGNIZED_SIGNATURES:
        *others, last = map(repr, RECOGNIZED_SIGNATURES)
        expected = f"{', '.join(others)} or {last}"
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
    return name


class ModelsFileError(ValueError):
    """The models file cannot be used; the message is one sentence that names the file."""


class ModelEntry(BaseModel):
    """The description of one model. Paths are relative to the models file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    hidden: bool = False
    """True: clients do not see the model."""
    served_name: Annotated[str, Field(min_length=1)] | None = None
    """The clients' name for it; default: Triton's name."""
    signature: Annotated[str, AfterValidator(_check_signature)] | None = None
    """Required if the model's tensors do not show it."""
    operations: Annotated[list[Literal["chat", "complete"]], Field(min_length=1)] | None = None
    """Default: `complete`, and `chat` where there is a template."""
    modalities: list[Literal["text", "image"]] | None = None
    chat_template: str | None = None
    """Jinja source."""
    chat_template_file: str | None = None
    """A file with Jinja source."""
    tokenizer_config: str | None = None
    """The checkpoint's `tokenizer_config.json`, with its template and special tokens."""
    special_tokens: dict[str, str] | None = None
    """Special tokens by the names that the template uses; they override those of `tokenizer_config`."""
    control_tokens: list[str] | None = None
    """All special tokens of the tokenizer; default: those of `tokenizer_config`."""
    special_tokens_in_content: Literal["text", "recognised"] | None = None
    """`text`: special tokens in messages are plain text (the default). `recognised`: they act as special tokens."""
    add_bos_token: bool | None = None
    """True: the backend adds `bos_token` to each prompt. Default: recognised (`gateway.signatures.registry`)."""
    context_length: PositiveInt32 | None = None
    """Tokens of prompt and answer together."""
    max_tokens: PositiveInt32 | None = None
    """Tokens of an answer where the caller sets no limit; default: `context_length`."""
    text: Literal["cumulative", "delta"] | None = None
    """`cumulative`: each response has the whole text so far. `delta`: only the new text. Default: detected."""
    structured_outputs: Literal["structured_outputs", "guided_decoding"] | None = None
    """The vLLM backend's name for a structured output; default: its inputs show it."""
    adapters: list[Annotated[str, Field(min_length=1)]] | None = None
    """The LoRA adapters of a vLLM model, as its `multi_lora.json` names them. Each is offered as a model."""
    owned_by: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    voices: dict[Annotated[str, Field(min_length=1)], VoiceEntry] | None = None
    """Recordings that a text-to-speech model imitates, by the name that callers use (`VoiceEntry`)."""
    default_voice: str | None = None
    """Default: the first voice."""
    sample_rate: PositiveInt32 | None = None
    """Samples a second of the speech; default: 24,000."""
    reference_sample_rate: PositiveInt32 = 16_000
    """Samples a second of the recordings: what the model expects."""
    overlap_seconds: Annotated[float, Field(ge=0, le=1)] | None = None
    """Seconds by which each response of a text-to-speech model overlaps the one before it; default: 0."""

    def parameters(self, folder: Path) -> dict[str, str]:
        """Return the description as parameters of `config.pbtxt`.

        Raises `ValueError` for an unknown parser, and `ValueError` or `OSError` for a file that cannot be read.
        """
        sources = [name for name in ("chat_template", "chat_template_file", "tokenizer_config") if getattr(self, name)]
        if len(sources) > 1 and sources != ["chat_template_file", "tokenizer_config"]:
            raise ValueError(f"only one of {' and '.join(sources)} may be set")
        template = self.chat_template
        tokens: dict[str, str] = {}
        adds_bos = None
        control = self.control_tokens
        if self.tokenizer_config:
            files = tokenizer_files.read(folder / self.tokenizer_config)
            template, tokens, adds_bos = files.chat_template, dict(files.special_tokens), files.adds_bos_token
            control = (files.control_tokens or None) if control is None else control
        if self.chat_template_file:
            template = (folder / self.chat_template_file).read_text(encoding="utf-8")
        tokens |= self.special_tokens or {}
        values: dict[str, Any] = self.model_dump(
            exclude_none=True,
            exclude={
                "hidden",
                "chat_template",
                "chat_template_file",
                "tokenizer_config",
                "special_tokens",
                "control_tokens",
                "voices",
                "reference_sample_rate",
            },
        )
        if self.voices:
            values["voices"] = read_voices(self.voices, folder, self.reference_sample_rate)
        if template is not None:
            values["chat_template"] = template
        if tokens:
            values["special_tokens"] = tokens
        if control is not None:
            values["control_tokens"] = control
        if adds_bos is not None:
            values["tokenizer_adds_bos"] = adds_bos
        if self.hidden:
            values["hidden"] = "true"
        parameters = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        chat_prompt.check(parse_text(parameters))
        parse_speech(parameters)
        return parameters


class _ModelsFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    models: dict[str, ModelEntry] = {}


def read(path: Path) -> Descriptions:
    """Read a models file. Raises `ModelsFileError`."""
    try:
        file = _ModelsFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ModelsFileError(f"The models file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelsFileError(f"The models file {path} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelsFileError(f"The models file {path}, {place}: {first['msg']}.") from None
    descriptions = {}
    for name, entry in file.models.items():
        try:
            descriptions[name] = entry.parameters(path.parent)
        except (OSError, ValueError) as error:
            raise ModelsFileError(f"The models file {path}, models.{name}: {error}.") from None
    return descriptions
