"""The network that finds speech in a recording: silero-vad's, from its package."""

import shutil
from pathlib import Path

from builders import packaged_files
from builders.packaged_files import PackagedFile, WheelPart
from builders.progress import Progress

# MIT. The package itself depends on torch, and is not installed.
NETWORK = PackagedFile(
    "silero_vad_16k_sequence.onnx",
    (WheelPart("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx"),),
    "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
    1_246_165,
)
"""Takes all frames of a recording in one call, at 16 kHz: `input` [frames, 576], `h` and `c` [1, 1, 128]."""


def write(engine: Path, progress: Progress) -> None:
    """Write `engine/vad.onnx`. Raises SourceUnavailable, MissingDependency."""
    (network,) = packaged_files.fetch([NETWORK], progress)
    shutil.copyfile(network, engine / "vad.onnx")
