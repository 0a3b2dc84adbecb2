"""The responses to a request: what the windows that have been decoded say, with times in the recording."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp
from typing import Any

from backends.transcription.alignment import SECONDS_PER_POSITION, token_times
from backends.transcription.job import Attempt, WindowResult
from backends.transcription.segments import TokenSpan, split_at_timestamps
from backends.transcription.tokens import WhisperTokens
from backends.transcription.words import split_words

_MIN_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON lacks."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The text of a part of the recording; `start` and `end` are seconds from its start."""

    text: str
    start: float
    end: float
    token_ids: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: str | None = None
    logprobs: str | None = None


@dataclass(frozen=True, slots=True)
class TranscriptionResponse:
    """One response; `consumed` is set in the last alone, which has no segment where no text is left to send."""

    language: str
    num_input_tokens: int
    num_audio_tokens: int
    """Those of the input tokens that are positions of sound."""
    num_output_tokens: int
    segment: Segment | None = None
    consumed: float | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """A word with its token numbers in the window, and its times in the recording."""

    text: str
    first: int
    last: int
    start: float
    end: float
    probability: float


class ResponseBuilder:
    """Makes the responses of one request, window by window."""

    def __init__(self, tokens: WhisperTokens, task: str, timestamps: str, *, logprobs: bool) -> None:
        """`task`, `timestamps` and `logprobs` are those of the request."""
        self._tokens = tokens
        self._task = task
        self._timestamps = timestamps
        self._logprobs = logprobs
        self._language = ""
        self._consumed = 0.0
        self._num_input_tokens = self._num_audio_tokens = self._num_output_tokens = 0

    def set_end(self, consumed: float, language: str) -> None:
        """Set what the last response says: the seconds consumed, and the language if no window has one."""
        self._consumed = consumed
        self._language = self._language or language

    def of_window(self, result: WindowResult) -> Iterator[TranscriptionResponse]:
        """Yield a response for each segment of a window. Its counts belong to the first; without one, to the next."""
        positions = ceil(result.window.seconds / SECONDS_PER_POSITION)
        self._num_audio_tokens += positions
        self._num_input_tokens += positions + result.num_prompt_tokens
        self._num_output_tokens += result.num_generated
        if result.is_silence:
            return
        self._language = result.language
        attempt = result.attempt
        words = self._words(result) if self._timestamps == "word" else []
        for span in self._spans(result):
            segment = self._segment(
                result, attempt, span, [word for word in words if span.first <= word.first < span.last]
            )
            if segment.text.strip():
                yield self._response(segment)

    def last(self, held: TranscriptionResponse | None) -> TranscriptionResponse:
        """Return the last response: `held` if there is one that has not been sent, or one without a segment."""
        if held is None:
            held = self._response(None)
        else:
            held = replace(
                held,
                num_input_tokens=held.num_input_tokens + self._num_input_tokens,
                num_audio_tokens=held.num_audio_tokens + self._num_audio_tokens,
                num_output_tokens=held.num_output_tokens + self._num_output_tokens,
            )
        return replace(held, consumed=self._consumed)

    def _response(self, segment: Segment | None) -> TranscriptionResponse:
        response = TranscriptionResponse(
            language=self._language,
            num_input_tokens=self._num_input_tokens,
            num_audio_tokens=self._num_audio_tokens,
            num_output_tokens=self._num_output_tokens,
            segment=segment,
        )
        self._num_input_tokens = self._num_audio_tokens = self._num_output_tokens = 0
        return response

    def _spans(self, result: WindowResult) -> list[TokenSpan]:
        seconds = result.window.seconds
        if self._timestamps == "none":
            return [TokenSpan(0, len(result.attempt.tokens), 0.0, seconds)]
        return split_at_timestamps(result.attempt.tokens, self._tokens.special.timestamp_begin, seconds)

    def _segment(self, result: WindowResult, attempt: Attempt, span: TokenSpan, words: Sequence[_Word]) -> Segment:
        tokens = attempt.tokens[span.first : span.last]
        start = result.window.time_in_recording(span.start)
        end = max(start, result.window.time_in_recording(span.end, is_end=True))
        if words:
            start, end = words[0].start, words[-1].end
        text = self._tokens.decode(tokens)
        return Segment(
            text=text,
            start=start,
            end=end,
            token_ids=tokens,
            avg_logprob=attempt.avg_logprob,
            no_speech_prob=result.no_speech_prob,
            compression_ratio=attempt.compression_ratio,
            temperature=attempt.temperature,
            words=_words_json(words) if self._timestamps == "word" else None,
            logprobs=self._logprobs_json(attempt, span) if self._logprobs else None,
        )

    def _words(self, result: WindowResult) -> list[_Word]:
        """Return the words of a window."""
        if result.attention is None:
            return []
        attempt, window = result.attempt, result.window
        numbers = [number for number, token in enumerate(attempt.tokens) if self._tokens.is_text(token)]
        text = [attempt.tokens[number] for number in numbers]
        times = token_times(result.attention, window.seconds)
        words = []
        language = "en" if self._task == "translate" else result.language
        for span in split_words(text, self._tokens.token_bytes, language):
            first, last = numbers[span.first], numbers[span.last - 1] + 1
            start = window.time_in_recording(float(times[first]))
            logprobs = [attempt.logprobs[numbers[index]] for index in range(span.first, span.last)]
            words.append(
                _Word(
                    text=span.text,
                    first=first,
                    last=last,
                    start=start,
                    end=max(start, window.time_in_recording(float(times[last]), is_end=True)),
                    probability=sum(map(exp, logprobs)) / len(logprobs),
                )
            )
        return words

    def _logprobs_json(self, attempt: Attempt, span: TokenSpan) -> str:
        entries: list[dict[str, Any]] = []
        for token, logprob in zip(
            attempt.tokens[span.first : span.last], attempt.logprobs[span.first : span.last], strict=True
        ):
            if self._tokens.is_text(token):
                data = self._tokens.token_bytes(token)
                text = data.decode("utf-8", "replace")
                entries.append({"token": text, "bytes": list(data), "logprob": max(logprob, _MIN_LOGPROB)})
        return json.dumps(entries, ensure_ascii=False)


def _words_json(words: Sequence[_Word]) -> str:
    return json.dumps(
        [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "probability": round(word.probability, 4),
            }
            for word in words
        ],
        ensure_ascii=False,
    )
