"""The operation `transcribe`: the text of recorded speech, in its language or translated into English."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, TypeAlias

from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation
from gateway.operations.recording import Recording
from gateway.operations.transcript import CONTENT_TYPES, SpeechTask, Transcript, TranscriptFormat
from gateway.operations.transcript_events import PieceEnd, Segment, TranscriptionEvent

Timestamps: TypeAlias = Literal["none", "segment", "word"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcribe(TaskOperation):
    """Transcribe `audio`: a recording, or mono little-endian float32 samples, 16,000 a second.

    `language` is an ISO-639-1 code; None: the model detects it. `task` `translate` gives the text in English. `prompt`
    is a text that could stand before the recording, or words that occur in it. `temperature` None lets the model retry
    a doubtful text at higher temperatures, beginning with 0. `vad` are options of voice activity detection
    (`threshold`, `prefix_padding_ms`, `silence_duration_ms`) as pairs; None: the model's defaults. `output_format` is
    the format of a task's output.
    """

    operation: ClassVar = "transcribe"
    phrase: ClassVar = "transcribe speech"
    route: ClassVar = "/v1/audio/transcriptions"
    task_object: ClassVar = "transcription"
    delta_events: ClassVar = (Segment,)
    audio_events: ClassVar = (PieceEnd,)

    audio: bytes | Recording
    language: str | None = None
    task: SpeechTask = "transcribe"
    prompt: str | None = None
    temperature: float | None = None
    timestamps: Timestamps = "none"
    logprobs: bool = False
    vad: tuple[tuple[str, float], ...] | None = None
    output_format: TranscriptFormat = "text"

    async def task_events(self, events: AsyncIterator[TranscriptionEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield the progress after each segment whose position is known, and the whole transcript at the end."""
        transcript, total = Transcript(self.task, self.temperature), None
        async for event in events:
            transcript.add(event)
            position = None
            if isinstance(event, PieceEnd):
                total, position = event.total, event.end
            elif isinstance(event, Segment):
                position = event.end
            if total and position:
                yield Progress(min(1.0, position / total))
        data = transcript.render(self.output_format, words=self.timestamps == "word", logprobs=self.logprobs)
        yield Output(**asdict(self.expected_outputs()[0]), data=data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one transcript."""
        return (ExpectedOutput(index=0, content_type=CONTENT_TYPES[self.output_format], facts={}),)


async def gather(events: AsyncIterator[TranscriptionEvent]) -> str:
    """Collect a stream. Return the whole text."""
    return "".join([event.text async for event in events if isinstance(event, Segment)]).strip()
