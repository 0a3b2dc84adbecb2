"""Let a built model speak fixed sentences, and compare it with its source."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.errors import VerificationFailed
from builders.progress import Progress

Samples = npt.NDArray[np.float32]
Speak = Callable[[list[int], str], Samples]
"""Speaks phoneme ids, between two zeros, with the voice of that id."""

PHONEMES = (
    "həlˈO.",
    "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ.",
    "plˈiz kˈɔl mˌi təmˈɑɹO mˈɔɹnɪŋ, ɪf ðə wˈɛðəɹ ɪz ɡˈʊd ɪnˈʌf fɔɹ sˈAlɪŋ.",
)
"""Sentences in the alphabet of Kokoro."""

MAX_DIFFERENCE = 1e-4
"""Largest allowed difference of a sample, of 1, where the network was copied."""
MIN_SIMILARITY = 0.9
"""Smallest allowed `spectral_similarity` where the network was converted to another precision."""
_BANDS = _TIMES = 24
SECONDS_PER_PHONEME = (0.03, 0.3)
MIN_VOLUME = 0.005
"""Smallest allowed root mean square of the samples."""


@dataclass(frozen=True, slots=True)
class SpeechMetrics:
    """The speech of a built model, and its distance from that of its source."""

    voices: int
    seconds: float
    """Length of all that was spoken."""
    difference_max: float
    """Largest difference of a sample from the source's, of 1; over the common length."""
    similarity_min: float
    """Smallest `spectral_similarity` of the two."""
    length_difference_max: float
    """Largest difference of the lengths, as a share."""


def verify(
    ours: Speak,
    theirs: Speak,
    voices: list[str],
    vocabulary: dict[str, int],
    sample_rate: int,
    *,
    is_copy: bool,
    progress: Progress,
) -> SpeechMetrics:
    """Speak `PHONEMES` with the first voice as both do, and the shortest of them with each other voice.

    Raises VerificationFailed with the figures, or the name of a voice that says nothing plausible.
    """
    seconds, differences, similarities, lengths = 0.0, [], [], []
    spoken = [(text, voices[0]) for text in PHONEMES] + [(PHONEMES[0], voice) for voice in voices[1:]]
    for number, (text, voice) in enumerate(spoken):
        progress.update(f"speaking with {voice}", number / len(spoken))
        ids = [0, *(vocabulary[symbol] for symbol in text if symbol in vocabulary), 0]
        samples = ours(ids, voice)
        _check_plausible(samples, voice, len(ids) - 2, sample_rate)
        seconds += len(samples) / sample_rate
        if voice != voices[0]:
            continue
        reference = theirs(ids, voice)
        common = min(len(samples), len(reference))
        differences.append(float(np.abs(samples[:common] - reference[:common]).max()))
        similarities.append(spectral_similarity(samples, reference))
        lengths.append(abs(len(samples) - len(reference)) / len(reference))
    figures = SpeechMetrics(
        len(voices), round(seconds, 2), max(differences), round(min(similarities), 4), round(max(lengths), 4)
    )
    fails = figures.difference_max > MAX_DIFFERENCE if is_copy else figures.similarity_min < MIN_SIMILARITY
    if fails:
        raise VerificationFailed(
            f"The model does not say what its source says: largest difference of a sample "
            f"{figures.difference_max:.2g}, smallest correlation of the spectrograms {figures.similarity_min}."
        )
    return figures


def spectral_similarity(one: Samples, other: Samples) -> float:
    """Return the correlation of two signals' spectra in `_BANDS` bands and `_TIMES` parts of their lengths.

    Kokoro predicts durations, and rounding shifts them: the parts make up for it. Networks of one precision and the
    other reach 0.96 and more, different sentences 0.8 at most.
    """
    first, second = (_coarse_spectrogram(each) for each in (one, other))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _coarse_spectrogram(samples: Samples, size: int = 1024) -> Any:
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, size), size)[:: size // 4]
    spectra = np.log(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) + 1e-2)
    edges = np.unique(np.geomspace(2, size // 2, _BANDS + 1).astype(int))
    bands = np.stack([spectra[:, low:high].mean(1) for low, high in itertools.pairwise(edges)], 1)
    times = np.linspace(0, len(bands), _TIMES + 1).astype(int)
    return np.stack([bands[start:end].mean(0) for start, end in itertools.pairwise(times)])


def _check_plausible(samples: Samples, voice: str, num_phonemes: int, sample_rate: int) -> None:
    if not np.isfinite(samples).all():
        raise VerificationFailed(f"The voice {voice} speaks samples that are no finite numbers.")
    volume = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
    low, high = (share * num_phonemes for share in SECONDS_PER_PHONEME)
    if volume < MIN_VOLUME or not low <= len(samples) / sample_rate <= high:
        raise VerificationFailed(
            f"The voice {voice} speaks {len(samples) / sample_rate:.2f} s with a volume of {volume:.2g} for "
            f"{num_phonemes} phonemes. From {low:.2f} to {high:.2f} s with at least {MIN_VOLUME} are plausible."
        )


def kokoro_speaker(network: Path, styles: Callable[[str], Path]) -> Speak:
    """Return a function that speaks with a network of Kokoro; `styles` returns the file of a voice."""
    session = _session(network)
    ids_name = next(each.name for each in session.get_inputs() if each.name not in ("style", "speed"))

    def speak(ids: list[int], voice: str) -> Samples:
        table = np.fromfile(styles(voice), np.float32).reshape(510, 1, 256)
        inputs = {
            ids_name: np.array([ids], np.int64),
            "style": table[len(ids) - 3],
            "speed": np.ones(1, np.float32),
        }
        samples: Samples = session.run(None, inputs)[0].reshape(-1)
        return samples

    return speak


def hibari_speaker(networks: Callable[[str], Path]) -> Speak:
    """Return a function that speaks as the library hibari does; `networks` returns the file of a voice."""
    from hibari import Hibari

    opened: dict[str, Any] = {}

    def speak(ids: list[int], voice: str) -> Samples:
        if voice not in opened:
            opened[voice] = Hibari(model=str(networks(voice)))
        samples: Samples = opened[voice].from_ids(ids, rng=np.random.default_rng(0))
        return samples

    return speak


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
