"""A whole transcript, and its formats: plain text, SRT, WebVTT and OpenAI's JSON."""

import html
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import orjson

from gateway.operations.language_names import language_name
from gateway.operations.transcript_events import (
    PieceEnd,
    Segment,
    TokenLogprob,
    TranscriptionEnd,
    TranscriptionEvent,
)

SpeechTask: TypeAlias = Literal["transcribe", "translate"]
TranscriptFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt"]

CONTENT_TYPES: Mapping[TranscriptFormat, str] = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""The content type of each format."""


class Transcript:
    """Collects the events of a transcription, and renders them."""

    def __init__(self, task: SpeechTask, temperature: float | None = None) -> None:
        """`task` and `temperature` are those of the request."""
        self._task = task
        self._temperature = temperature
        self.segments: list[Segment] = []
        self.end = TranscriptionEnd(language="", duration=0.0)

    def add(self, event: TranscriptionEvent) -> None:
        """Add the next event."""
        if isinstance(event, Segment):
            self.segments.append(event)
        elif isinstance(event, TranscriptionEnd):
            self.end = event
        else:
            assert isinstance(event, PieceEnd)

    @property
    def text(self) -> str:
        """The whole text, without spaces at its ends."""
        return "".join([segment.text for segment in self.segments]).strip()

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        """The log probabilities of the tokens, as in OpenAI's JSON."""
        return render_logprobs(tuple(entry for segment in self.segments for entry in segment.logprobs))

    def render(self, output_format: TranscriptFormat, *, words: bool = False, logprobs: bool = False) -> bytes:
        """Return the transcript as a file. `words` and `logprobs` go into the formats that have a place for them."""
        match output_format:
            case "text":
                return self.text.encode()
            case "srt":
                return self.srt().encode()
            case "vtt":
                return self.vtt().encode()
            case "verbose_json":
                return orjson.dumps(self.verbose(words=words))
            case "json":
                return orjson.dumps(self.json(logprobs=logprobs))

    def json(self, *, logprobs: bool = False, languages: bool = False) -> dict[str, Any]:
        """Return OpenAI's `Transcription`. With `languages`, the language that was found is in it."""
        return {"text": self.text, **self.details(logprobs=logprobs, languages=languages)}

    def details(self, *, logprobs: bool, languages: bool) -> dict[str, Any]:
        """Return the fields of OpenAI's `Transcription` beside its text."""
        found = [{"code": self.end.language}] if self.end.language else []
        return {
            **({"languages": found} if languages else {}),
            **({"logprobs": self.logprobs} if logprobs else {}),
            "usage": self.token_usage() or self.duration_usage(),
        }

    def token_usage(self) -> dict[str, Any] | None:
        """Return OpenAI's `UsageTokens`; None if the model does not count tokens."""
        read, written = self.end.prompt_tokens, self.end.completion_tokens
        if read is None or written is None:
            return None
        sound = self.end.audio_tokens
        details = {} if sound is None else {"audio_tokens": sound, "text_tokens": max(0, read - sound)}
        return {
            "type": "tokens",
            "input_tokens": read,
            **({"input_token_details": details} if details else {}),
            "output_tokens": written,
            "total_tokens": read + written,
        }

    def duration_usage(self) -> dict[str, Any]:
        """Return OpenAI's `UsageDuration`."""
        return {"type": "duration", "seconds": _seconds(self.end.duration)}

    def verbose(self, *, segments: bool = True, words: bool = False) -> dict[str, Any]:
        """Return OpenAI's `TranscriptionVerbose`, of a translation `TranslationVerbose`.

        A figure that the model does not report is 0; the temperature is then that of the request.
        """
        translated = self._task == "translate"
        answer: dict[str, Any] = {
            "task": self._task,
            "language": "english" if translated else language_name(self.end.language),
            "duration": _seconds(self.end.duration),
            "text": self.text,
        }
        if segments:
            answer["segments"] = [
                {
                    "id": number,
                    "seek": segment.seek,
                    "start": _seconds(segment.start or 0.0),
                    "end": _seconds(segment.end or segment.start or 0.0),
                    "text": segment.text,
                    "tokens": list(segment.token_ids),
                    "temperature": _figure(segment.temperature, self._temperature or 0.0),
                    "avg_logprob": _figure(segment.avg_logprob),
                    "compression_ratio": _figure(segment.compression_ratio),
                    "no_speech_prob": _figure(segment.no_speech_prob),
                }
                for number, segment in enumerate(self.segments)
            ]
        if words:
            answer["words"] = [
                {"word": word.word.strip(), "start": _seconds(word.start), "end": _seconds(word.end)}
                for segment in self.segments
                for word in segment.words
            ]
        if not translated:
            answer["usage"] = self.duration_usage()
        return answer

    def srt(self) -> str:
        """Return the segments as SubRip subtitles."""
        return "".join(
            f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text.replace('-->', '->')}\n\n"
            for number, (start, end, text) in enumerate(self._cues(), 1)
        )

    def vtt(self) -> str:
        """Return the segments as WebVTT subtitles (https://www.w3.org/TR/webvtt1/)."""
        cues = "".join(
            f"{_clock(start, '.')} --> {_clock(end, '.')}\n{html.escape(text, quote=False)}\n\n"
            for start, end, text in self._cues()
        )
        return f"WEBVTT\n\n{cues}"

    def _cues(self) -> Iterator[tuple[float, float, str]]:
        """Yield the start, end and text of each segment that has a text. The text has no blank lines."""
        last_end = 0.0
        for segment in self.segments:
            start = last_end if segment.start is None else segment.start
            end = self.end.duration if segment.end is None else segment.end
            last_end = max(start, end)
            if text := "\n".join(filter(None, map(str.strip, segment.text.splitlines()))):
                yield start, last_end, text


def render_logprobs(entries: tuple[TokenLogprob, ...]) -> list[dict[str, Any]]:
    """Return log probabilities as in OpenAI's JSON."""
    return [{"token": entry.token, "bytes": list(entry.bytes), "logprob": entry.logprob} for entry in entries]


def _clock(seconds: float, point: str) -> str:
    """Return a time as HH:MM:SS with milliseconds."""
    whole, milliseconds = divmod(max(0, round(1000 * seconds)), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milliseconds:03}"


def _seconds(value: float) -> float:
    """Return seconds without the digits that come from float32."""
    return round(float(value), 3)


def _figure(value: float | None, default: float = 0.0) -> float:
    return default if value is None else round(float(value), 6)
