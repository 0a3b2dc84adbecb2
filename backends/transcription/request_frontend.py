"""Requests for transcriptions: validation, and how a recording becomes windows."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from backends.serving.errors import GenerationError, InvalidValue, Overloaded
from backends.serving.request_frontend import RequestFrontend
from backends.transcription.active_request import ActiveTranscription, TranscriptionSender
from backends.transcription.log_mel import Floats
from backends.transcription.options import SAMPLE_RATE, Options
from backends.transcription.request import Request, check_audio, check_task, check_temperatures, check_timestamps
from backends.transcription.scheduler import TranscriptionScheduler
from backends.transcription.tokens import WhisperTokens
from backends.transcription.voice_activity import SpeechDetector, VoiceActivityParams, parse_voice_activity

_SHORT_SECONDS = 60
"""Length up to which the voice activity of a recording is found within a moment; longer ones have their own thread."""
_MAX_PROMPT_TOKENS = 223
"""Tokens of the text before the recording that are read: half of Whisper's context, less one."""
_MAX_PROMPT_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request with valid inputs. `language` is None if it is to be detected."""

    audio: Floats
    language: str | None
    task: str
    prompt: list[int]
    temperatures: tuple[float, ...]
    timestamps: str
    more: bool
    voice_activity: VoiceActivityParams
    return_logprobs: bool


class TranscriptionFrontend(RequestFrontend[Request, TranscriptionSender, ActiveTranscription]):
    """Finds the speech of recordings, and hands its windows to the scheduler."""

    def __init__(
        self,
        scheduler: TranscriptionScheduler,
        detector: SpeechDetector,
        tokens: WhisperTokens,
        options: Options,
    ) -> None:
        """Own the scheduler: `close` closes it."""
        super().__init__(scheduler.stats)
        self.scheduler = scheduler
        self.detector = detector
        self.tokens = tokens
        self._options = options
        self._languages = list(tokens.languages) or ["en"]
        self._short_pool = self.new_pool(1, "transcription-speech")
        self._long_pool = self.new_pool(1, "transcription-long-speech")

    def make_active(self, key: int, request: Request, sender: TranscriptionSender) -> ActiveTranscription:
        """Return the active request that `key` identifies; it has not started."""
        return ActiveTranscription(key, request, sender, self)

    def queue_error(self, active: ActiveTranscription) -> GenerationError | None:
        """Return `Overloaded` while too many requests or too much sound are unanswered.

        A request that would be the only one is admitted however long it is.
        """
        if len(self._active_requests) > self._options.max_waiting:
            return Overloaded(f"{len(self._active_requests)} recordings wait already; try again later.")
        if self._active_requests and self.active_size + active.size > self._options.max_waiting_seconds * SAMPLE_RATE:
            return Overloaded(f"{self.active_size / SAMPLE_RATE:.0f} seconds of sound wait already; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every job that is open."""
        self.scheduler.close()

    def pool_for(self, request: Request) -> ThreadPoolExecutor:
        """Return the thread that finds the speech of a recording: long ones have one of their own."""
        is_long = request.num_samples > _SHORT_SECONDS * SAMPLE_RATE
        return self._long_pool if is_long else self._short_pool

    def check(self, request: Request) -> CheckedRequest:
        """Return a request with all of its inputs checked. Raises `GenerationError`."""
        return CheckedRequest(
            audio=check_audio(request, self._options),
            language=self._check_language(request.language),
            task=check_task(request, self._options, is_multilingual=self.tokens.is_multilingual),
            prompt=self._encode_prompt(request.prompt),
            temperatures=check_temperatures(request),
            timestamps=check_timestamps(request),
            more=request.more,
            voice_activity=parse_voice_activity(request.vad),
            return_logprobs=request.return_logprobs,
        )

    def _check_language(self, language: str | None) -> str | None:
        if not language:
            return self._languages[0] if len(self._languages) == 1 else None
        if language not in self._languages:
            known = ", ".join(sorted(self._languages))
            raise InvalidValue(f"This model does not know {language[:64]!r}; it knows {known}.", "language")
        return language

    def _encode_prompt(self, prompt: str | None) -> list[int]:
        """Return the last tokens of a prompt that the decoder has room for."""
        text = (prompt or "").strip()[-_MAX_PROMPT_CHARS:]
        return self.tokens.encode(" " + text)[-_MAX_PROMPT_TOKENS:] if text else []
