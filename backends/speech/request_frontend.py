"""Requests for speech: checks, preparation of the text, and the responses."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import EngineFailed, GenerationError, InvalidValue, Overloaded, UnsupportedOption
from backends.serving.request_frontend import RequestFrontend
from backends.speech.families.acoustic_model import AcousticModel, Sound
from backends.speech.options import Options
from backends.speech.scheduler import SpeechJob, SpeechScheduler
from backends.speech.speaker import MAX_SPEED, MIN_SPEED
from backends.speech.text import checks
from backends.speech.text.phonemizers import Phonemizer
from backends.speech.text.pieces import pieces
from backends.speech.text.readings import prepare
from backends.speech.voices import Voices

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request, unchecked; None if not sent. `text` is required."""

    text: bytes | None
    voice: str | None = None
    language: str | None = None
    speed: float | None = None
    instructions: str | None = None


class SpeechSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send(self, audio: Pcm, sample_rate: int, num_tokens: int, num_frames: int) -> None:
        """Send a chunk: int16[samples], mono."""

    def finish(self) -> None:
        """Send the last response, which carries no audio."""


class SpeechFrontend(RequestFrontend[Request, SpeechSender, "ActiveSpeech"]):
    """Checks requests and hands their texts to the scheduler."""

    def __init__(
        self, scheduler: SpeechScheduler, model: AcousticModel, phonemizer: Phonemizer, options: Options
    ) -> None:
        """Own the scheduler: `close` closes it."""
        super().__init__(scheduler.stats)
        self.scheduler = scheduler
        self.sample_rate = model.sample_rate
        self.pool = self.new_pool(1, "speech-texts")
        self._model = model
        self._phonemizer = phonemizer
        self._options = options
        self._voices = Voices(options.voices, options.default_voice, mix_accents=model.mixes_accents)

    def make_active(self, key: int, request: Request, sender: SpeechSender) -> "ActiveSpeech":
        """Return the active request that `key` identifies; it has not started."""
        return ActiveSpeech(key, request, sender, self)

    def queue_error(self, active: "ActiveSpeech") -> GenerationError | None:
        """Return `Overloaded` while `max_rows` requests take turns and `max_waiting` more wait."""
        if self.active_size >= self._options.max_rows + self._options.max_waiting:
            return Overloaded(f"{self.active_size} texts are spoken or wait already; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every job that is open."""
        self.scheduler.close()

    def make_job(
        self,
        request: Request,
        on_sound: Callable[[Sound], None],
        on_finished: Callable[[], None],
        on_failed: Callable[[Exception], None],
    ) -> SpeechJob:
        """Check a request and prepare its text. Raises `InvalidValue` or `UnsupportedOption`, naming the input."""
        if request.text is None:
            raise InvalidValue("There must be a text.", "text")
        if (request.instructions or "").strip():
            raise UnsupportedOption("This model does not follow instructions.", "instructions")
        speed = 1.0 if request.speed is None else request.speed
        if not MIN_SPEED <= speed <= MAX_SPEED:  # also false for NaN
            raise InvalidValue(f"This must be from {MIN_SPEED} to {MAX_SPEED:g}, not {speed:g}.", "speed")
        voice = self._voices.find(request.voice)
        language = self._voices.language(voice, request.language)
        text = checks.decode(request.text, self._options.max_characters)
        checks.check(text, voice.name)
        text = prepare(text, self._phonemizer.known_letters)
        phonemes = pieces(text, language, self._phonemizer, self._model.max_phonemes, self._model.first_phonemes)
        return SpeechJob(phonemes, voice.id, speed, on_sound, on_finished, on_failed)


class ActiveSpeech(ActiveRequest[SpeechFrontend, SpeechSender]):
    """One request from its admission to its last response."""

    def __init__(self, key: int, request: Request, sender: SpeechSender, frontend: SpeechFrontend) -> None:
        super().__init__(key, sender, frontend)
        self._request = request
        self._job: SpeechJob | None = None

    def start(self) -> None:
        """Have the text checked and prepared."""
        self.run_in_pool(self._frontend.pool, self._prepare)

    def release(self) -> None:
        """Take the text out of the queue."""
        if self._job:
            self._frontend.scheduler.cancel(self._job)

    def _prepare(self) -> None:
        self._job = self._frontend.make_job(
            self._request,
            on_sound=lambda sound: self.post(partial(self._send_sound, sound)),
            on_finished=lambda: self.finish(self._sender.finish),
            on_failed=self._on_failed,
        )
        self._frontend.scheduler.submit(self._job)

    def _send_sound(self, sound: Sound) -> None:
        assert self._job
        try:
            rate = self._frontend.sample_rate
            self._sender.send(to_pcm(sound.samples), rate, sound.num_tokens, sound.num_frames)
        finally:
            self._frontend.scheduler.sent(self._job)

    def _on_failed(self, error: Exception) -> None:
        if isinstance(error, GenerationError):
            self.fail(error)
        else:
            self.fail(EngineFailed(f"The text could not be spoken: {str(error)[:500]}"))


def to_pcm(samples: npt.NDArray[np.float32]) -> Pcm:
    """Return samples from -1 to 1 as 16-bit integers; louder ones are clipped."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
