"""Recordings for the benchmarks of sound: readings from a package, and sentences that models of this project speak."""

import io
import re
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from builders.packaged_files import PackagedFile, WheelPart, fetch
from builders.progress import NullProgress

RATE = 16_000
"""Samples a second of every recording: those that Whisper reads."""
CHARACTERS_PER_SECOND = 15
"""How fast a voice reads, for the choice of texts of about a given length."""
_TEXT = Path(__file__).parent / "data" / "alice.txt"
_PACKAGE = "moonshine-voice==0.1.5"
"""MIT licence, Moonshine AI. Its wheel is unpacked, never installed."""
READINGS = {
    "beckett": (
        PackagedFile(
            "beckett.wav",
            (WheelPart(_PACKAGE, "moonshine_voice/assets/beckett.wav"),),
            "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
            318_978,
        ),
        "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
    ),
    "two_cities": (
        PackagedFile(
            "two_cities.wav",
            (WheelPart(_PACKAGE, "moonshine_voice/assets/two_cities.wav"),),
            "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
            4_260_326,
        ),
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
        "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
        "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had "
        "nothing before us, we were all going direct to Heaven, we were all going direct the other way - in short, the "
        "period was so far like the present period, that some of its noisiest authorities insisted on its being "
        "received, for good or for evil, in the superlative degree of comparison only.",
    ),
}
"""Recordings of people, of 10 and 44 seconds, and what they read."""

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of speech: float32[samples] from -1 to 1, `RATE` a second, and its text."""

    name: str
    samples: Samples
    text: str

    @property
    def seconds(self) -> float:
        """The length."""
        return len(self.samples) / RATE

    def wav(self) -> bytes:
        """Return a WAV file with 16 bits a sample."""
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(RATE)
            writer.writeframes((self.samples * 32767).round().astype("<i2").tobytes())
        return file.getvalue()


def packaged_reading(name: str) -> Recording:
    """Return one of `READINGS`, downloaded once into the cache. Raises `SourceUnavailable`."""
    file, text = READINGS[name]
    (path,) = fetch([file], NullProgress())
    with wave.open(str(path)) as reader:
        data, rate = reader.readframes(reader.getnframes()), reader.getframerate()
    return Recording(name, resample(np.frombuffer(data, "<i2").astype(np.float32) / 32768, rate), text)


def resample(samples: Samples, rate: int) -> Samples:
    """Return sound of `rate` samples a second at `RATE`."""
    if rate == RATE:
        return samples
    from scipy.signal import resample_poly

    found: Samples = np.clip(resample_poly(samples, RATE, rate), -1, 1).astype(np.float32)
    return found


def speak(http: httpx.Client, model: str, text: str, voice: str | None = None) -> Samples:
    """Let a model speak through the gateway; return its samples at `RATE`. Raises `RuntimeError` if it refuses."""
    body = {"model": model, "input": text, "response_format": "pcm"} | ({"voice": voice} if voice else {})
    response = http.post("/v1/audio/speech", json=body)
    if response.status_code != 200:
        raise RuntimeError(f"{model} did not speak: {response.text}")
    return resample(np.frombuffer(response.content, "<i2").astype(np.float32) / 32768, 24_000)


def transcribe(http: httpx.Client, model: str, wav: bytes, **fields: str) -> Any:
    """Transcribe English through the gateway; return the JSON answer. Raises `RuntimeError` if it is refused."""
    form = {"model": model, "language": "en", **fields}
    response = http.post("/v1/audio/transcriptions", files={"file": ("recording.wav", wav, "audio/wav")}, data=form)
    if response.status_code != 200:
        raise RuntimeError(f"{model} did not transcribe: {response.text}")
    return response.json()


def passages(seconds: float) -> Iterator[str]:
    """Yield passages of a book, of whole sentences, that take a voice about `seconds` to read."""
    paragraphs = _TEXT.read_text(encoding="utf-8").split("\n\n")
    text = " ".join(" ".join(each.split()) for each in paragraphs if each.rstrip("'\n ")[-1:] in ".!?")
    text = re.sub(r"(?<!\w)'|'(?!\w)", "", text).replace(" -- ", ", ")
    text = re.sub(r"[A-Z]{2,}", lambda shouted: shouted.group().lower(), text)
    passage = ""
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text):
        passage = f"{passage} {sentence}".strip()
        if len(passage) >= seconds * CHARACTERS_PER_SECOND:
            if len(passage) <= 1.25 * seconds * CHARACTERS_PER_SECOND:
                yield passage
            passage = ""
