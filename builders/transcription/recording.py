"""The recording that the verification transcribes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

FILE = Path(__file__).with_name("recording.wav")
"""A voice reads Charles Dickens: "It was the best of times, it was the worst of times. It was the age of wisdom".

From `two_cities.wav` in the package moonshine-voice 0.1.5 (MIT licence, Moonshine AI): 5.5 seconds, made louder, at
16 kHz in the µ-law of ITU-T G.711, which needs half the room of 16-bit samples.
"""

_DATA = b"data"


def samples() -> npt.NDArray[np.float32]:
    """Return the recording: float32[samples] between -1 and 1, 16,000 a second."""
    content = FILE.read_bytes()
    start = content.index(_DATA) + 8
    codes = ~np.frombuffer(content[start:], np.uint8)
    magnitude = (((codes & 15).astype(np.int32) << 3) + 0x84 << ((codes & 0x70) >> 4).astype(np.int32)) - 0x84
    return (np.where(codes & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)
