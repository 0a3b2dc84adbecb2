"""Files of sound that `tests.fakes.listening_model` understands: utterances, which are tones, and silence."""

import array
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np

Part = tuple[float, float]
"""The amplitude, 0 to 1, and the length in seconds."""

HELLO: tuple[Part, ...] = ((0, 0.5), (0.4, 1.2), (0, 0.8), (0.4, 2.0), (0, 0.5))
"""The model hears `u12 u20`."""


def heard(parts: Sequence[Part]) -> str:
    """Return the text that the model hears."""
    return " ".join(f"u{round(10 * seconds)}" for amplitude, seconds in parts if amplitude)


def sound_file(
    container: str = "wav",
    codec: str = "pcm_s16le",
    parts: Sequence[Part] = HELLO,
    *,
    rate: int = 16_000,
    layout: str = "mono",
    streams: int = 1,
    video: bool = False,
    repeat: int = 1,
) -> bytes:
    """Return an encoded file. Its `streams` have the same sound. `parts` come `repeat` times."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        pictures: Any = file.add_stream("mpeg4", rate=5) if video else None
        if pictures:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        tracks: list[Any] = [file.add_stream(codec, rate=rate, layout=layout) for _ in range(streams)]
        for track in tracks:
            track.bit_rate = 128_000
        file.start_encoding()
        for number in range(5 if pictures else 0):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 50 * number, np.uint8), format="rgb24")
            picture.pts = number
            file.mux(pictures.encode(picture))
        for track in tracks:
            _encode(file, track, parts, rate, layout, repeat)
        if pictures:
            file.mux(pictures.encode(None))
    return out.getvalue()


def _encode(file: Any, track: Any, parts: Sequence[Part], rate: int, layout: str, repeat: int) -> None:
    channels = av.AudioLayout(layout).nb_channels
    resampler = av.AudioResampler(
        format=track.format.name, layout=layout, rate=rate, frame_size=track.frame_size or None
    )
    position = 0
    once = [np.repeat(block, channels) for block in _blocks(parts, rate)]
    for _ in range(repeat):
        for block in once:
            frame = av.AudioFrame(format="s16", layout=layout, samples=len(block) // channels)
            frame.sample_rate, frame.pts = rate, position
            frame.planes[0].update(block.tobytes())
            position += frame.samples
            for encoded in resampler.resample(frame):
                file.mux(track.encode(encoded))
    for encoded in resampler.resample(None):
        file.mux(track.encode(encoded))
    file.mux(track.encode(None))


def _blocks(parts: Sequence[Part], rate: int) -> Iterator[Any]:
    for amplitude, seconds in parts:
        if count := int(seconds * rate):
            yield (32_000 * amplitude * np.sin(np.arange(count) * (2 * math.pi * 300 / rate))).astype("<i2")


def float_wav(values: Sequence[float], rate: int = 16_000) -> bytes:
    """Return a WAV file of these float32 samples."""
    data = array.array("f", values).tobytes()
    format_chunk = b"fmt " + (16).to_bytes(4, "little") + b"\x03\0\x01\0" + rate.to_bytes(4, "little")
    format_chunk += (4 * rate).to_bytes(4, "little") + b"\x04\0\x20\0"
    body = b"WAVE" + format_chunk + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body
