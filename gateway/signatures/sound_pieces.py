"""Long recordings: a model reads them in pieces, one request after another, in constant memory.

The samples are decoded while the model reads them. The model says how much of a piece it has transcribed; the next
piece begins there. A model that cannot say that gets pieces that end in a quiet moment.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from gateway.errors import GatewayError
from gateway.operations.recording import BYTES_PER_SECOND, SAMPLE_RATE, BytesReader, Recording
from gateway.operations.transcript_events import PieceEnd, Segment, TranscriptionEnd
from gateway.signatures.call import Call, Events, ModelRequest, Responses, read_responses
from gateway.triton.tensors import Tensor

_MIN_CONSUMED_SECONDS = 0.5
"""A model that has consumed less than this of a piece gets a longer piece."""
_QUIET_SEARCH = 0.25
"""Last part of a piece in which the quiet moment is searched."""
_QUIET_SECONDS = 0.1
_STRIDE = 8
"""Every eighth sample is looked at for loudness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a recording. `start` is its place in seconds; `has_more`: more sound follows it.

    `language` is the code that the request or an earlier piece has; None: the model detects it.
    """

    samples: bytes
    start: float
    has_more: bool
    language: str | None


@dataclass(slots=True)
class PieceResult:
    """The figures in the responses to one piece, beside its segments."""

    consumed: float | None = None
    """Seconds of the piece that need not be sent again; None: all of them."""
    language: str = ""
    input_tokens: int | None = None
    audio_tokens: int | None = None
    """Those of the input tokens that are sound."""
    output_tokens: int | None = None
    silent_tokens: int = 0
    """Output tokens that no segment counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecePlace:
    """The place of a piece in its recording: its `start` in seconds and its `size` in bytes.

    `can_grow`: where the model finds no place to stop in the piece, a longer one follows.
    """

    start: float
    size: int
    is_last: bool
    can_grow: bool

    def consumed_bytes(self, seconds: float | None) -> int:
        """Return how many bytes need not be sent again. The model reports `seconds`; None: it reports nothing."""
        if self.is_last or seconds is None:
            return self.size
        consumed = max(0, min(self.size, 4 * round(seconds * SAMPLE_RATE)))
        if consumed >= _MIN_CONSUMED_SECONDS * BYTES_PER_SECOND:
            return consumed
        return 0 if self.can_grow else self.size


EncodePiece: TypeAlias = Callable[[Piece], Sequence[Tensor]]
DecodePiece: TypeAlias = Callable[[PiecePlace, Responses, PieceResult], AsyncGenerator[Segment]]
"""Yields the segments of a piece, and fills in its result. Times are those of the whole recording."""


class PieceSequence:
    """The requests for one recording, each made when the one before it has been answered."""

    def __init__(
        self,
        audio: bytes | Recording,
        encode: EncodePiece,
        decode: DecodePiece,
        *,
        language: str | None,
        seconds: float,
        max_seconds: float,
        reports_consumed: bool,
    ) -> None:
        """Pieces have `seconds`, or up to `max_seconds` where the model finds no place to stop in them.

        `reports_consumed`: the model says how much of a piece it has transcribed.
        """
        self._audio = audio
        self._encode = encode
        self._decode = decode
        self._seconds = min(seconds, max_seconds)
        self._max_seconds = max_seconds
        self._reports_consumed = reports_consumed
        self._language = language
        self._found_language = ""
        self._position = 0
        """Samples that have been transcribed."""
        self._input_tokens: int | None = None
        self._audio_tokens: int | None = None
        self._output_tokens: int | None = None
        self._total: float | None = None
        self._consumed = 0
        """Bytes of the last piece that need not be sent again."""

    def call(self, explain: Callable[[GatewayError], GatewayError]) -> Call:
        """Return the call. Samples in memory that are short enough become a single request."""
        if isinstance(self._audio, bytes) and len(self._audio) <= self._seconds * BYTES_PER_SECOND:
            self._total = len(self._audio) / BYTES_PER_SECOND
            piece = Piece(samples=self._audio, start=0.0, has_more=False, language=self._language)
            return Call((self._request(piece, is_last=True, can_grow=False),), explain)
        return Call((), explain, sequence=self._requests())

    async def _requests(self) -> AsyncGenerator[ModelRequest]:
        """Yield the request for each piece. Raises a `GatewayError` for a bad recording."""
        reader = self._audio.open() if isinstance(self._audio, Recording) else BytesReader(self._audio)
        seconds = self._seconds
        try:
            while True:
                size = int(seconds * SAMPLE_RATE) * 4
                # One sample more than the piece shows whether something follows.
                has_more = await reader.fill(size + 4) > size
                samples = reader.peek(size)
                self._total = reader.total_seconds
                is_last = not has_more
                if has_more and not self._reports_consumed:
                    samples = samples[: _quiet_place(samples)]
                start = self._position / SAMPLE_RATE
                piece = Piece(samples=samples, start=start, has_more=has_more, language=self._language)
                del samples
                can_grow = self._reports_consumed and seconds < self._max_seconds
                yield self._request(piece, is_last=is_last, can_grow=can_grow)
                del piece
                if is_last:
                    return
                reader.drop(self._consumed)
                seconds = self._seconds if self._consumed else min(2 * seconds, self._max_seconds)
        finally:
            await reader.aclose()

    def _request(self, piece: Piece, *, is_last: bool, can_grow: bool) -> ModelRequest:
        tensors = self._encode(piece)
        place = PiecePlace(start=piece.start, size=len(piece.samples), is_last=is_last, can_grow=can_grow)

        def events(responses: Responses) -> Events:
            return read_responses(self._events(place, responses), responses)

        return ModelRequest(tensors, events)

    async def _events(self, place: PiecePlace, responses: Responses) -> Events:
        result = PieceResult()
        has_text = False
        async with aclosing(self._decode(place, responses, result)) as segments:
            async for segment in segments:
                has_text = True
                result.language = segment.language or result.language
                yield segment
        if has_text or not self._found_language:
            self._found_language = result.language or self._found_language
        if has_text and self._language is None:
            self._language = result.language or None
        self._consumed = consumed = place.consumed_bytes(result.consumed)
        self._position += consumed // 4
        self._input_tokens = _sum(self._input_tokens, result.input_tokens)
        self._audio_tokens = _sum(self._audio_tokens, result.audio_tokens)
        self._output_tokens = _sum(self._output_tokens, result.output_tokens)
        yield PieceEnd(
            end=self._position / SAMPLE_RATE,
            total=self._total,
            audio_seconds=consumed / BYTES_PER_SECOND,
            prompt_tokens=result.input_tokens or 0,
            tokens=result.silent_tokens,
        )
        if place.is_last:
            yield TranscriptionEnd(
                language=self._language or self._found_language,
                duration=self._position / SAMPLE_RATE,
                prompt_tokens=self._input_tokens,
                audio_tokens=self._audio_tokens,
                completion_tokens=self._output_tokens,
            )


def _sum(first: int | None, second: int | None) -> int | None:
    return first if second is None else second + (first or 0)


def _quiet_place(samples: bytes) -> int:
    """Return the middle, in bytes, of the quietest tenth of a second near the end of the samples."""
    values = memoryview(samples).cast("f")
    width = int(_QUIET_SECONDS * SAMPLE_RATE)
    first = int(len(values) * (1 - _QUIET_SEARCH))
    starts = range(first, len(values) - width, width)
    best = min(starts, key=lambda start: sum(map(abs, values[start : start + width : _STRIDE])), default=len(values))
    return 4 * min(best + width // 2, len(values))
