"""Draws the spectrograms of docs/sound.md: one sentence, spoken by the default voice and by a voice of Kokoro.

`python -m benchmarks.spectrograms` starts Triton and the gateway. It needs the models hibari and kokoro-82m in the
model repository.
"""

import argparse
from pathlib import Path

import httpx
import numpy as np

from benchmarks.deployment import deploy, only
from benchmarks.models import SPEECH_MODEL
from benchmarks.sound_recordings import RATE, Samples, speak
from benchmarks.transcription import KOKORO

SENTENCE = "Dr. Smith paid $340 for a new bicycle on Friday."
FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
VOICES = {"speech-hibari.png": (SPEECH_MODEL, None), "speech-kokoro.png": (KOKORO, "george")}
"""The pictures, with the model and the voice that speaks in each."""
WINDOW, HOP = 512, 64
"""Samples of a window and between two windows: 32 and 4 ms."""
DECIBELS = 70


def spectrogram(samples: Samples) -> Samples:
    """Return float32[frequencies, frames]: decibels below the loudest part, 0 to -`DECIBELS`."""
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, WINDOW // 2), WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), axis=1)) ** 2
    found: Samples = np.maximum(10 * np.log10(power / power.max() + 1e-12), -DECIBELS).T.astype(np.float32)
    return found


def draw(samples: Samples, title: str, path: Path) -> None:
    """Write the spectrogram of sound as a PNG of a few colours, which is small."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(8, 2.9), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    extent = (0, len(samples) / RATE, 0, RATE / 2000)
    image = axes.imshow(spectrogram(samples), origin="lower", aspect="auto", extent=extent, cmap="magma")
    axes.set(title=title, xlabel="seconds", ylabel="kHz")
    figure.colorbar(image, ax=axes, label="dB")
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    drawn.quantize(64).save(path, optimize=True)


def main() -> None:
    """Speak the sentence and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    repository = parser.parse_args().repository.resolve()
    with only(repository, (SPEECH_MODEL, KOKORO)) as served, deploy(served, SPEECH_MODEL) as server:
        http = httpx.Client(base_url=server.gateway_url, timeout=300, trust_env=False)
        for name, (model, voice) in VOICES.items():
            title = f"{model}{f', voice {voice}' if voice else ''}: “{SENTENCE}”"
            draw(speak(http, model, SENTENCE, voice), title, FOLDER / name)


if __name__ == "__main__":
    main()
