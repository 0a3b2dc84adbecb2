"""The operation `speak`: speech from a text."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gateway.operations.operation import Operation


@dataclass(frozen=True, slots=True)
class Sound:
    """The next part of the speech: mono, little-endian int16 samples, `sample_rate` a second.

    `tokens` is the number of acoustic frames that the model generated for it; 0: unknown.
    """

    samples: bytes
    sample_rate: int
    tokens: int = 0

    @property
    def seconds(self) -> float:
        """The length of this part."""
        return len(self.samples) / 2 / self.sample_rate


@dataclass(frozen=True, slots=True)
class SpeechUsage:
    """Tokens of the whole speech: phonemes that the model read, and acoustic frames that it generated.

    The last event of a stream. A signature without token counts has no such event.
    """

    prompt_tokens: int
    completion_tokens: int


SpeechEvent: TypeAlias = Sound | SpeechUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class Speak(Operation):
    """Speak `text`. None leaves an option to the model.

    `voice` is the id of one of the model's voices. `language` is a code of BCP 47 (`en`, `en-GB`). `speed` multiplies
    the rate of speech, without a change of pitch. `instructions` describe the manner of speaking.
    """

    operation: ClassVar = "speak"
    phrase: ClassVar = "speak"
    genai_operation: ClassVar = "text_to_speech"
    route: ClassVar = "/v1/audio/speech"
    paces_tokens: ClassVar = False
    delta_events: ClassVar = (Sound,)
    usage_events: ClassVar = (SpeechUsage,)

    text: str
    voice: str | None = None
    language: str | None = None
    speed: float | None = None
    instructions: str | None = None


async def gather(events: AsyncIterator[SpeechEvent]) -> tuple[list[Sound], SpeechUsage | None]:
    """Collect a stream. Return the parts of the speech, and the token counts where the model reports them."""
    sounds: list[Sound] = []
    usage = None
    async for event in events:
        if isinstance(event, Sound):
            sounds.append(event)
        else:
            usage = event
    return sounds, usage
