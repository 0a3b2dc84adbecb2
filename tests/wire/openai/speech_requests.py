"""Speech requests, and the files that answer them, decoded by FFmpeg."""

import io
from typing import Any

import av
import httpx

from tests.wire.gateway_server import RunningGateway

TEXT = "The first sentence. The second one is longer than that. Done!"


async def speak(
    gateway: RunningGateway, model: str = "hibari", path: str = "/v1/audio/speech", **more: Any
) -> httpx.Response:
    return await gateway.http.post(path, json={"model": model, "input": TEXT, **more})


def decode(data: bytes, speech_format: str) -> tuple[float, int]:
    """Return the seconds of a whole file, and its samples a second."""
    raw = speech_format == "pcm"
    options = {"sample_rate": "24000", "ch_layout": "mono"} if raw else {}
    with av.open(io.BytesIO(data), "r", format="s16le" if raw else None, options=options) as file:
        frames = list(file.decode(audio=0))
    assert all(frame.layout.nb_channels == 1 for frame in frames)
    return sum(frame.samples for frame in frames) / frames[0].sample_rate, frames[0].sample_rate
