"""The events of a transcription."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a segment, with the space before it. Times are in seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the text, its UTF-8 bytes and the logarithm of its probability."""

    token: str
    bytes: tuple[int, ...]
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The next words of the text, with the space before them. What the model does not report is None or empty.

    `start` and `end` are in seconds from the start of the recording. `seek` is the start of the piece of sound that the
    model read, in hundredths of a second. `token_ids` are Whisper's tokens, `tokens` is the number of tokens that the
    model generated since the last event. The other figures are defined as in OpenAI's Whisper.
    """

    text: str
    start: float | None = None
    end: float | None = None
    language: str = ""
    words: tuple[Word, ...] = ()
    token_ids: tuple[int, ...] = ()
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    compression_ratio: float | None = None
    temperature: float | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    seek: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceEnd:
    """A piece of the recording has been read. The model reads long recordings in pieces, one after another.

    `end` is the position in seconds up to which the recording has been read, `total` its length if that is known.
    `audio_seconds` is the part of it that this piece added. `prompt_tokens` and `tokens` count the tokens that the
    model read for the piece, and those that it generated after the last segment.
    """

    end: float
    total: float | None
    audio_seconds: float
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionEnd:
    """The last event. `language` is an ISO-639-1 code, empty if it is unknown; `duration` is in seconds.

    `prompt_tokens` and `completion_tokens` are None where the model does not count tokens. `audio_tokens` are those of
    the prompt tokens that are sound; None where the model does not tell them apart.
    """

    language: str
    duration: float
    prompt_tokens: int | None = None
    audio_tokens: int | None = None
    completion_tokens: int | None = None


TranscriptionEvent: TypeAlias = Segment | PieceEnd | TranscriptionEnd
