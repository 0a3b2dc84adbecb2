"""Models of the responses of transcriptions and translations, for the OpenAPI document."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from gateway.http.openapi_responses import omitted

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class TranscriptionLogprob(BaseModel):
    """A token of the text, its UTF-8 bytes, and the logarithm of its probability."""

    token: str
    bytes: list[Annotated[int, Field(ge=0, le=255)]]
    logprob: float


class TranscriptionLanguage(BaseModel):
    """A language of the recording, by its code."""

    code: str


class InputTokenDetails(BaseModel):
    """The tokens that the model read: those of the sound, and those of the prompt."""

    audio_tokens: Count
    text_tokens: Count


class TokenUsage(BaseModel):
    """The tokens that the model read and generated."""

    type: Literal["tokens"]
    input_tokens: Count
    input_token_details: Annotated[InputTokenDetails, Field(default_factory=omitted)]
    output_tokens: Count
    total_tokens: Count


class DurationUsage(BaseModel):
    """The length of the recording."""

    type: Literal["duration"]
    seconds: Seconds


class Transcription(BaseModel):
    """A transcription or translation in the format `json`."""

    text: str
    languages: Annotated[list[TranscriptionLanguage], Field(default_factory=omitted)]
    logprobs: Annotated[list[TranscriptionLogprob], Field(default_factory=omitted)]
    usage: TokenUsage | DurationUsage


class TranscriptionSegment(BaseModel):
    """A segment of the text, with figures as OpenAI's Whisper defines them."""

    id: Count
    seek: Count
    start: Seconds
    end: Seconds
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class TranscriptionWord(BaseModel):
    """A word and its times in seconds."""

    word: str
    start: Seconds
    end: Seconds


class VerboseTranscription(BaseModel):
    """A transcription or translation in the format `verbose_json`."""

    task: Literal["transcribe", "translate"]
    language: Annotated[str, Field(description="The English name of the language, in lower case.")]
    duration: Seconds
    text: str
    segments: Annotated[list[TranscriptionSegment], Field(default_factory=omitted)]
    words: Annotated[list[TranscriptionWord], Field(default_factory=omitted)]
    usage: Annotated[DurationUsage, Field(default_factory=omitted)]


class TranscriptTextDeltaEvent(BaseModel):
    """The next part of the text."""

    type: Literal["transcript.text.delta"]
    delta: str
    logprobs: Annotated[list[TranscriptionLogprob], Field(default_factory=omitted)]


class TranscriptTextDoneEvent(BaseModel):
    """The whole text; the last event of a stream."""

    type: Literal["transcript.text.done"]
    text: str
    languages: Annotated[list[TranscriptionLanguage], Field(default_factory=omitted)]
    logprobs: Annotated[list[TranscriptionLogprob], Field(default_factory=omitted)]
    usage: Annotated[TokenUsage, Field(default_factory=omitted)]


STREAM_EVENTS: tuple[type[BaseModel], ...] = (TranscriptTextDeltaEvent, TranscriptTextDoneEvent)
