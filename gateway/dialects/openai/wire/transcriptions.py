"""Requests of transcriptions and translations: https://platform.openai.com/docs/api-reference/audio

`url`, a `file` in JSON, and `language` of translations are not OpenAI's.
"""

from contextlib import suppress
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Request
from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator
from pydantic_core import from_json

from gateway.dialects.openai.wire.form_fields import holds_numbers, parse_number
from gateway.dialects.openai.wire.sampling import UnsupportedList
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http import delivery
from gateway.http.forms import Form, Upload
from gateway.http.spooled_forms import SpooledUpload
from gateway.http.wire_model import UNION_TAG, WireModel
from gateway.media.recordings import Recordings
from gateway.media.spool import SpoolFile
from gateway.operations.language_names import language_code
from gateway.operations.recording import Recording
from gateway.operations.transcribe import Timestamps, Transcribe
from gateway.operations.transcript import SpeechTask, TranscriptFormat

MAX_PROMPT_CHARACTERS = 16_384
"""Characters of `prompt` and `keywords` together. Models read the last few hundred tokens."""
_STRATEGY = "chunking_strategy"
_LISTS = ("timestamp_granularities", "include", "languages", "keywords")
_FILE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}],
    "description": "A data URL, base64 or an http(s) URL; in a form, the file itself.",
}
_Term = Annotated[str, Field(min_length=1, max_length=200)]


class VadConfig(WireModel):
    """OpenAI's `server_vad`: how voice activity detection cuts the recording."""

    type: Literal["server_vad"]
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    prefix_padding_ms: Annotated[int | None, Field(ge=0, le=5_000)] = None
    silence_duration_ms: Annotated[int | None, Field(ge=0, le=10_000)] = None


ChunkingStrategy: TypeAlias = Annotated[
    Annotated[Literal["auto"], Tag(UNION_TAG + "auto")] | Annotated[VadConfig, Tag(UNION_TAG + "vad")],
    Discriminator(lambda value: UNION_TAG + ("auto" if isinstance(value, str) else "vad")),
]


class SpeechFields(WireModel):
    """Fields of transcriptions and translations. A form has the same fields, as texts and a file."""

    file: Annotated[Any, WithJsonSchema(_FILE_SCHEMA)] = None
    url: Annotated[str | None, Field(min_length=1)] = None
    model: str | None = None
    language: Annotated[str | None, Field(max_length=64)] = None
    prompt: Annotated[str | None, Field(max_length=MAX_PROMPT_CHARACTERS)] = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] | None = None
    temperature: Annotated[float | None, Field(ge=0, le=1)] = None
    stream: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_form(cls, body: Any) -> Any:
        """Convert the texts of a form to the types of their fields, and drop empty ones."""
        if not isinstance(body, Form):
            return body
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        read: dict[str, Any] = {}
        strategy: dict[str, Any] = {}
        for name, value in body.items():
            if value == "":
                continue
            if name.startswith(f"{_STRATEGY}[") and name.endswith("]"):
                strategy[name[len(_STRATEGY) + 1 : -1]] = parse_number(value)
            elif name in _LISTS and not isinstance(value, list):
                read[name] = [value]
            elif name in fields and holds_numbers(fields[name].annotation):
                read[name] = parse_number(value)
            else:
                read[name] = value
        if strategy:
            read[_STRATEGY] = strategy
        elif isinstance(text := read.get(_STRATEGY), str) and text.lstrip().startswith("{") and len(text) < 1024:
            with suppress(ValueError):  # validation refuses the text
                read[_STRATEGY] = from_json(text)
        return read

    @property
    def output_format(self) -> TranscriptFormat:
        """The format of the answer. Raises `UnsupportedOption` for one that no model can give."""
        if self.response_format == "diarized_json":
            raise UnsupportedOption(
                "'response_format' 'diarized_json' is not supported: no model tells speakers apart.",
                param="response_format",
            )
        return self.response_format or "json"

    @property
    def timestamps(self) -> Timestamps:
        """The times that the answer needs."""
        return "segment" if self.output_format in ("srt", "vtt", "verbose_json") else "none"

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `Transcribe`. Raises `InvalidRequest` and `UnsupportedOption`."""
        if self.stream and self.output_format not in ("json", "text"):
            raise InvalidRequest(
                f"A stream has no 'response_format' '{self.output_format}': use 'json' or 'text', or omit 'stream'.",
                param="response_format",
            )
        return {
            "language": parse_language(self.language, "language") if self.language else None,
            "prompt": self.prompt.strip() or None if self.prompt else None,
            # OpenAI's 0 lets the model raise the temperature of doubtful parts, as the absent value does.
            "temperature": self.temperature or None,
            "timestamps": self.timestamps,
            "output_format": self.output_format,
        }


class CreateTranslationRequest(SpeechFields):
    """The body of a translation into English. `language` is the language of the recording."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "whisper-base", "url": "https://example.com/speech.mp3"}]}
    )


class CreateTranscriptionRequest(SpeechFields):
    """The body of a transcription: a recording as a file of a form, by URL, or in base64."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "whisper-base", "url": "https://example.com/speech.mp3", "response_format": "verbose_json"}
            ]
        }
    )

    languages: Annotated[list[Annotated[str, Field(max_length=64)]] | None, Field(max_length=100)] = None
    keywords: Annotated[list[_Term] | None, Field(max_length=500)] = None
    timestamp_granularities: Annotated[list[Literal["word", "segment"]] | None, Field(max_length=2)] = None
    include: Annotated[list[Literal["logprobs"]] | None, Field(max_length=1)] = None
    chunking_strategy: ChunkingStrategy | None = None
    known_speaker_names: UnsupportedList = None
    known_speaker_references: UnsupportedList = None

    @property
    def granularities(self) -> frozenset[str]:
        """The granularities of a verbose answer: by default `segment`, as at OpenAI."""
        return frozenset(self.timestamp_granularities or ("segment",))

    @property
    def timestamps(self) -> Timestamps:
        """The times that the answer needs."""
        return "word" if "word" in self.granularities else super().timestamps

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `Transcribe`, as `SpeechFields.options` does."""
        for name in ("known_speaker_names", "known_speaker_references"):
            if getattr(self, name):
                raise UnsupportedOption(f"'{name}' is not supported: no model tells speakers apart.", param=name)
        options = super().options()
        if self.timestamp_granularities and self.output_format != "verbose_json":
            raise InvalidRequest(
                "'timestamp_granularities' requires 'response_format' 'verbose_json'.", param="timestamp_granularities"
            )
        if self.include and self.output_format != "json":
            raise InvalidRequest("'include' requires 'response_format' 'json'.", param="include")
        languages = [parse_language(text, f"languages[{i}]") for i, text in enumerate(self.languages or ())]
        if options["language"] is None and len(languages) == 1:
            options["language"] = languages[0]
        elif options["language"] and languages and options["language"] not in languages:
            raise InvalidRequest("'language' is not among 'languages'.", param="language")
        if self.keywords:
            options["prompt"] = " ".join(filter(None, (options["prompt"], ", ".join(self.keywords))))
            if len(options["prompt"]) > MAX_PROMPT_CHARACTERS:
                raise InvalidRequest(
                    f"'prompt' and 'keywords' have more than {MAX_PROMPT_CHARACTERS} characters together.",
                    param="keywords",
                )
        strategy = self.chunking_strategy
        given = strategy.model_dump(exclude_none=True, exclude={"type"}) if isinstance(strategy, VadConfig) else {}
        options["vad"] = None if strategy is None else tuple(sorted(given.items()))
        options["logprobs"] = bool(self.include)
        return options


def parse_language(text: str, param: str) -> str | None:
    """Return the code of a language; None for `auto`. Raises `InvalidRequest` if it is unknown."""
    if text.strip().lower() in ("", "auto"):
        return None
    code = language_code(text)
    if code is None:
        raise InvalidRequest(
            f"Invalid value for '{param}': '{text[:64]}' is no language that is known here; expected a code of "
            "ISO 639-1 such as 'en', 'de' or 'zh', or an English name such as 'german'.",
            param=param,
        )
    return code


async def parse_request(body: SpeechFields, task: SpeechTask, model: str, request: Request) -> Transcribe:
    """Return the operation of `body`, with its recording received but not decoded.

    Raises `InvalidRequest`, `UnsupportedOption`, `Overloaded`, `StorageFull`, and `ClientDisconnected`.
    """
    options = body.options()
    recording = await _load(body, request)
    return Transcribe(model=model, audio=recording, task=task, **options)


async def _load(body: SpeechFields, request: Request) -> Recording:
    recordings: Recordings = request.app.state.media.recordings
    caller: str = request.state.trace.caller
    if body.file is not None and body.url is not None:
        raise InvalidRequest("Send either 'file' or 'url', not both.", param="url")
    param, value = ("url", body.url) if body.url is not None else ("file", body.file)
    spool: SpoolFile
    match value:
        case SpooledUpload():
            spool = value.file
        case Upload():
            spool = recordings.uploads.new_spool(caller)
            request.state.trace.cleanup.callback(spool.close)
            await spool.write(value.data)
            await spool.finish()
        case str():
            spool = await delivery.whole(request, recordings.uploads.load(value, param=param, caller=caller))
            request.state.trace.cleanup.callback(spool.close)
        case None:
            raise InvalidRequest("The field 'file' is required.", param="file")
        case _:
            raise InvalidRequest("'file' must be one file, a data URL, base64 or a URL.", param="file")
    return recordings.recording(spool, param=param, caller=caller)


def form_request_body(schema: type[SpeechFields]) -> dict[str, Any]:
    """Return the OpenAPI `requestBody` of the same request as a form."""
    properties = dict(schema.model_json_schema(ref_template="#/components/schemas/{model}")["properties"])
    properties["file"] = {"type": "string", "format": "binary"}
    for name in ("known_speaker_names", "known_speaker_references"):
        properties.pop(name, None)
    return {
        "requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": properties}}}}
    }
