"""The transcription backend without Triton and without weights: scripted networks and recording senders."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.serving.errors import GenerationError
from backends.transcription.batch import DecoderBatch
from backends.transcription.loading import restrict_languages
from backends.transcription.log_mel import Floats
from backends.transcription.options import SAMPLE_RATE, Options
from backends.transcription.request import Request
from backends.transcription.request_frontend import TranscriptionFrontend
from backends.transcription.responses import TranscriptionResponse
from backends.transcription.scheduler import TranscriptionScheduler
from backends.transcription.stats import Stats
from backends.transcription.tokens import WhisperTokens
from tests.unit.transcription.scripted_networks import CONFIG, LoudnessDetector, Script, ScriptedNetworks, make_tokens

MAX_ROWS = 4


class RecordingSender:
    """A response sender that records its responses."""

    def __init__(self) -> None:
        self.disconnected = False
        self.answered = threading.Event()
        self.responses: list[TranscriptionResponse] = []
        self.error: GenerationError | None = None
        self.num_last = 0

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send(self, response: TranscriptionResponse, *, final: bool) -> None:
        self.responses.append(response)
        if final:
            self.num_last += 1
            self.answered.set()

    def fail(self, error: GenerationError) -> None:
        self.error = error
        self.num_last += 1
        self.answered.set()

    def outcome(self) -> list[TranscriptionResponse]:
        assert self.answered.wait(60)
        assert self.num_last == 1
        if self.error:
            raise self.error
        return self.responses

    def text(self) -> str:
        return "".join(response.segment.text for response in self.outcome() if response.segment)


class ScriptedMel:
    """A spectrogram that holds the loudness of the sound."""

    num_mels = CONFIG.num_mels

    def __call__(self, audio: Floats, num_frames: int) -> Floats:
        return np.full((CONFIG.num_mels, num_frames), audio.max(), np.float32)


def sound(*parts: tuple[int, float]) -> Floats:
    """Sound of a loudness in thousandths and a length in seconds, each followed by 1 s of silence."""
    silence = np.zeros(SAMPLE_RATE, np.float32)
    made = [
        array
        for loudness, seconds in parts
        for array in (np.full(int(seconds * SAMPLE_RATE), loudness / 1000, np.float32), silence)
    ]
    return np.concatenate([silence, *made])


@pytest.fixture
def scripts() -> dict[int, Script]:
    """What each loudness says; a test adds its own."""
    return {}


@pytest.fixture
def networks(scripts: dict[int, Script]) -> ScriptedNetworks:
    return ScriptedNetworks(scripts)


@pytest.fixture
def tokens(tmp_path: Path, options: Options) -> WhisperTokens:
    return make_tokens(tmp_path, restrict_languages(CONFIG, options))


@pytest.fixture
def options() -> Options:
    return Options(max_rows=MAX_ROWS, max_waiting=8, max_seconds=100, max_waiting_seconds=200)


@pytest.fixture
def frontend(networks: ScriptedNetworks, tokens: WhisperTokens, options: Options) -> Iterator[TranscriptionFrontend]:
    stats = Stats()

    def make_batch(positions: int) -> DecoderBatch:
        return DecoderBatch(networks, CONFIG, tokens, ScriptedMel(), positions, options.max_rows, stats)

    scheduler = TranscriptionScheduler(make_batch, lambda seconds: 100 if seconds < 3 else 150, options.max_rows, stats)
    frontend = TranscriptionFrontend(scheduler, LoudnessDetector(), tokens, options)
    yield frontend
    networks.gate.set()
    frontend.close()


@pytest.fixture
def ask(frontend: TranscriptionFrontend) -> Callable[..., RecordingSender]:
    """A function that sends a request, and returns its sender."""

    def send(audio: Any, **inputs: Any) -> RecordingSender:
        sender = RecordingSender()
        frontend.add_request(Request(audio, **inputs), sender)
        return sender

    return send


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.005)
