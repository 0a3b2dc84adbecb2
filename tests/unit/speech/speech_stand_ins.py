"""The speech backend without Triton: a scripted model, a phonemizer that spells, and senders that record."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from backends.serving.errors import GenerationError
from backends.speech.families.acoustic_model import Sound
from backends.speech.options import Options
from backends.speech.voices import Voice

OPTIONS = Options(
    voices=(Voice("ann", "Ann", "en-US"), Voice("bob", "Bob", "en-GB")),
    default_voice="ann",
    max_characters=2000,
    max_rows=3,
    max_waiting=2,
    threads=1,
)


class ScriptedModel:
    """A model that makes one sample a phoneme: the number of the phoneme's letter. It waits at `gate`.

    It fails on the phoneme `#`.
    """

    sample_rate = 100
    speeds = (0.5, 2.0)
    max_phonemes = 40
    first_phonemes = 30
    mixes_accents = False

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.rest_gate = threading.Event()
        self.rest_gate.set()
        self.spoken: list[tuple[str, str, float]] = []

    def synthesize(self, phonemes: str, voice: str, speed: float) -> Sound:
        self.spoken.append((phonemes, voice, speed))
        assert self.gate.wait(30)
        if "#" in phonemes:
            raise RuntimeError("the network is broken")
        samples = np.array([ord(symbol) / 1000 for symbol in phonemes], np.float32)
        return Sound(samples, len(phonemes), 2 * len(phonemes))

    def synthesize_parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Yield the part before the first `|` alone, and wait at `rest_gate` before the rest."""
        sound = self.synthesize(phonemes, voice, speed)
        if split := phonemes.find("|") + 1:
            yield Sound(sound.samples[:split], sound.num_tokens, 2 * split)
            assert self.rest_gate.wait(30)
            sound = Sound(sound.samples[split:], 0, sound.num_frames - 2 * split)
        yield sound


class Spelling:
    """A phonemizer whose phonemes are the letters."""

    known_letters = frozenset("é")

    def __init__(self) -> None:
        self.read: list[tuple[str, str]] = []

    def __call__(self, sentence: str, language: str) -> str:
        self.read.append((sentence, language))
        return sentence


class RecordingSender:
    """A response sender that records its responses, and waits at `gate` before each chunk."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.disconnected = False
        self.ended = threading.Event()
        self.chunks: list[npt.NDArray[np.int16]] = []
        self.counts: list[tuple[int, int, int]] = []
        self.error: GenerationError | None = None

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send(self, audio: npt.NDArray[np.int16], sample_rate: int, num_tokens: int, num_frames: int) -> None:
        assert self.gate.wait(30)
        assert not self.ended.is_set(), "a chunk after the last response"
        self.chunks.append(audio)
        self.counts.append((sample_rate, num_tokens, num_frames))

    def finish(self) -> None:
        self._end()

    def fail(self, error: GenerationError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        assert not self.ended.is_set(), "two last responses"
        self.ended.set()

    def text(self) -> list[str]:
        """Wait for the last response; return what the chunks of a `ScriptedModel` say. Raises the error."""
        assert self.ended.wait(30)
        if self.error is not None:
            raise self.error
        return ["".join(chr(round(sample / 32.767)) for sample in chunk) for chunk in self.chunks]


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for at most 30 s."""
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("the condition did not become true")
